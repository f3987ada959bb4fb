"""`wan vae` as a user runs it: what succeeds, and what is refused in one line that leaves no file."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time

import pytest
import torch
from clips import drawn, write_clip, write_sound
from safetensors import safe_open
from safetensors.torch import save_file

from wan_model.checkpoints import load_vae
from wan_model.cli import main
from wan_model.vae_tiles import at_most, decode_tiles, encode_tiles
from wan_model.video_io import frames_of, read_video, write_video
from wan_model.video_reader import probe, read_frames


@pytest.fixture
def work(tmp_path, monkeypatch):
    """An empty directory to run in; sources lie beside it."""
    directory = tmp_path / "work"
    directory.mkdir()
    monkeypatch.chdir(directory)
    return directory


@pytest.fixture
def clip(tmp_path):
    return write_clip(tmp_path / "clip.mp4", 9)


@pytest.fixture
def run(capsys, work, tiny_directory):
    """Runs `wan vae ...`, which must succeed; returns its two outputs."""

    def run(*arguments: object) -> tuple[str, str]:
        assert main(["vae", *map(str, arguments), "--model", str(tiny_directory)]) == 0
        return capsys.readouterr()

    return run


@pytest.fixture
def refuse(capsys, work, tiny_directory):
    """Runs `wan vae ...`, which must be refused; returns the last line it says. Nothing may be left."""

    def run(*arguments: object, model: object = tiny_directory) -> str:
        assert main(["vae", *map(str, arguments), "--model", str(model)]) == 2
        out, err = capsys.readouterr()
        *before, line = err.splitlines()
        assert out == "" and line.startswith("error: "), err
        assert all(each.startswith(("chunk ", "note: ")) for each in before), err
        assert os.listdir(work) == []
        return line.removeprefix("error: ")

    return run


def test_encode_then_decode_is_what_the_vae_does(run, work, clip, tiny_directory):
    out, _ = run("encode", clip, "--chunk", 2)
    assert out == "clip.safetensors\n"
    vae = load_vae(tiny_directory, dtype=torch.float32)
    latents = vae.encode(torch.cat(list(read_frames(clip)), dim=2), chunk=2)
    with safe_open(work / "clip.safetensors", framework="pt") as file:
        assert torch.equal(file.get_tensor("latents").transpose(0, 1)[None], latents)
        metadata = file.metadata()
    assert metadata["vae"].startswith("16 channels, 4x8x8, width 16, statistics ")
    told = {key: metadata[key] for key in ("fps", "width", "height", "num_frames", "dtype")}
    assert told == {"fps": "24", "width": "96", "height": "64", "num_frames": "9", "dtype": "float32"}

    out, _ = run("decode", "clip.safetensors", "--chunk", 2)
    assert out == "clip.mp4\n"
    direct, _ = write_video(work / "direct.mp4", frames_of([vae.decode(latents, chunk=2)]), 24)
    assert (read_video(work / "clip.mp4") == read_video(direct)).all()
    assert sorted(os.listdir(work)) == ["clip.mp4", "clip.safetensors", "direct.mp4"]


def test_bf16_is_kept_in_the_file(run, work, clip):
    run("encode", clip, "--dtype", "bf16", "-o", "a.safetensors")
    with safe_open(work / "a.safetensors", framework="pt") as file:
        assert file.get_tensor("latents").dtype == torch.bfloat16 and file.metadata()["dtype"] == "bfloat16"
    run("decode", "a.safetensors", "--dtype", "bf16", "--out", "a.gif")
    assert read_video(work / "a.gif").shape == (9, 64, 96, 3)


def test_crop_cuts_edges_and_last_frames_and_says_so(run, work, tmp_path):
    clip = write_clip(tmp_path / "odd.mp4", 12, size=(100, 70))
    _, err = run("encode", clip, "--crop", "--chunk", 1)
    assert err.splitlines() == [
        "note: cut 100x70 to 96x64, around the centre",
        "note: dropped the last 3 frames, for 4n + 1",
    ]
    run("decode", "odd.safetensors", "--chunk", 1)
    info = probe(work / "odd.mp4")
    assert (info.width, info.height, info.num_frames, info.fps) == (96, 64, 9, 24)


@pytest.mark.slow
def test_a_longer_roundtrip_is_as_near(tmp_path, work):
    write_clip(tmp_path / "clip.mp4", 601)
    assert main(["vae", "roundtrip", str(tmp_path / "clip.mp4"), "--json", "a.json"]) == 0
    assert json.loads((work / "a.json").read_text())["psnr_db"] > 20


def test_roundtrip_of_moving_text_and_shapes(capsys, work, tmp_path):
    """The packaged model, which knows such colours and shapes but no letters: 21.9 dB, 0.872 where it was measured."""
    clip = write_clip(tmp_path / "clip.mp4", 101)
    assert main(["vae", "roundtrip", str(clip), "--chunk", "4", "--json", "a.json", "-o", "back.mp4"]) == 0
    out = capsys.readouterr().out
    for word in (
        "101 of 96x64",
        "PSNR, mean over frames",
        "SSIM, mean over frames",
        "encoding",
        "decoding",
        "frames/s",
    ):
        assert word in out
    found = json.loads((work / "a.json").read_text())
    assert (found["num_frames"], found["fps"], found["chunk"]) == (101, "24", 4)
    assert 20 < found["psnr_db"] < 40 and 0.8 < found["ssim"] < 1
    assert found["encode_s"] > 0 and found["decode_s"] > 0
    back = read_video(work / "back.mp4")
    assert back.shape == (101, 64, 96, 3)
    # A frame against another one is further off than against its own.
    own = abs(back.astype(int) - list(drawn(101))).mean()
    assert abs(back[10:].astype(int) - list(drawn(91))).mean() > 1.5 * own


def test_auto_says_what_it_picked_and_why(run, clip, monkeypatch):
    _, err = run("encode", clip)
    assert err.startswith("chunk 4: encode at 96x64 takes ") and err.endswith("; more would not be faster\n")
    monkeypatch.setattr("wan_model.commands.vae.free_bytes", lambda device: None)
    _, err = run("encode", clip)
    assert err.startswith("chunk 1: encode at 96x64 takes ") and err.endswith(", free memory unknown\n")


@pytest.fixture
def large_clip(tmp_path):
    return write_clip(tmp_path / "clip.mp4", 9, size=(144, 96))


TILES = ("--tile", "64x64", "--overlap", "32")


def test_tiles_are_what_the_library_makes_of_them(run, work, large_clip, tiny_directory):
    out, err = run("encode", large_clip, "--chunk", 2, *TILES)
    assert out == "clip.safetensors\n"
    assert err.startswith("chunk 2, 8 tiles of 64x64: encode at 144x96 takes ") and err.count("\n") == 1
    vae, tiling = load_vae(tiny_directory, dtype=torch.float32), at_most((8, 8), (12, 18), 4)
    frames = list(read_frames(large_clip))
    latents = torch.cat(list(encode_tiles(vae, lambda: frames, tiling, 2)), dim=2)
    with safe_open(work / "clip.safetensors", framework="pt") as file:
        assert torch.equal(file.get_tensor("latents").transpose(0, 1)[None], latents)
    assert run("decode", "clip.safetensors", *TILES)[0] == "clip.mp4\n"
    direct, _ = write_video(work / "direct.mp4", frames_of(decode_tiles(vae, lambda: [latents], tiling, 4)), 24)
    assert (read_video(work / "clip.mp4") == read_video(direct)).all()


def test_a_roundtrip_in_tiles_is_as_near_as_one_without(work, large_clip):
    figures = []
    for options in (("--tile", "none"), ("--tile", "128x96", "--overlap", "48")):
        assert main(["vae", "roundtrip", str(large_clip), "--chunk", "2", "--json", "a.json", *options]) == 0
        figures.append(json.loads((work / "a.json").read_text()))
    assert [each["num_tiles"] for each in figures] == [1, 2] and figures[1]["tile"] == "96x96"
    assert figures[1]["psnr_db"] == pytest.approx(figures[0]["psnr_db"], abs=0.3)
    assert all(len(each) > 0 and each["decode_s"] > 0 and each["encode_s"] > 0 for each in figures)


def test_little_memory_is_met_with_tiles(run, tmp_path, monkeypatch):
    clip = write_clip(tmp_path / "clip.mp4", 5, size=(320, 176))
    monkeypatch.setattr("wan_model.commands.vae.free_bytes", lambda device: 10**8)
    _, err = run("roundtrip", clip)
    assert err.startswith("chunk 1, 2 tiles of 192x176: roundtrip at 320x176 takes ")
    assert "; whole frames would take 0.1 GB; " in err and " MB of disk in " in err


def test_crop_says_it_once_however_often_it_reads(run, tmp_path):
    clip = write_clip(tmp_path / "odd.mp4", 7, size=(148, 100))
    _, err = run("roundtrip", clip, "--crop", "--chunk", 1, *TILES)
    assert [line for line in err.splitlines() if line.startswith("note: ")] == [
        "note: cut 148x100 to 144x96, around the centre",
        "note: dropped the last 2 frames, for 4n + 1",
    ]


def test_help_has_an_example(capsys):
    for command in ("encode", "decode", "roundtrip"):
        assert main(["vae", command, "--help"]) == 0
        assert f"wan vae {command} " in capsys.readouterr().out


@pytest.mark.parametrize("options", [(), ("--tile", "128x128")], ids=["whole", "tiles"])
@pytest.mark.parametrize("command", ["encode", "roundtrip"])
@pytest.mark.parametrize(
    ("size", "num_frames", "message"),
    [
        ((100, 64), 9, "[vae] sides must be multiples of 8 pixels, got 100x64; 96x64 or 104x64 would do; --crop cuts"),
        ((96, 64), 8, "[vae] number of frames must be 4n + 1, got 8; 5 or 9 would do; --crop drops the last 3"),
    ],
)
def test_what_does_not_fit_names_its_neighbours(refuse, tmp_path, command, size, num_frames, message, options):
    assert message in refuse(command, write_clip(tmp_path / "clip.mp4", num_frames, size=size), *options)


def test_a_length_that_no_header_tells_is_refused_at_the_end(refuse, clip, monkeypatch):
    real = probe(clip)
    monkeypatch.setattr(
        "wan_model.commands.vae_source.probe", lambda path: type(real)(real.width, real.height, real.fps, None)
    )
    monkeypatch.setattr(
        "wan_model.commands.vae_source.read_frames", lambda path: iter([torch.zeros(1, 3, 1, 64, 96)] * 8)
    )
    assert "number of frames must be 4n + 1, got 8; 5 or 9 would do" in refuse("encode", clip)


def test_broken_videos(refuse, clip, tmp_path):
    (tmp_path / "empty.mp4").touch()
    (tmp_path / "cut.mp4").write_bytes(write_clip(tmp_path / "long.mp4", 41).read_bytes()[:-2500])
    write_sound(tmp_path / "sound.mp4")
    for name, message in (
        ("none.mp4", "[video] file must exist"),
        ("empty.mp4", "[video] file must be a video that decodes"),
        ("cut.mp4", "[video] file must be a video that decodes"),
        ("sound.mp4", "[video] file must hold a video"),
    ):
        for command in ("encode", "roundtrip"):
            assert message in refuse(command, tmp_path / name)


def test_latents_of_another_vae(refuse, run, clip, work, tmp_path, tiny_directory):
    run("encode", clip)
    shutil.move(work / "clip.safetensors", tmp_path / "clip.safetensors")
    line = refuse("decode", tmp_path / "clip.safetensors", model="tiny")
    assert line.startswith("[latents] must be of the VAE that decodes them (16 channels, ")
    assert line.endswith("); choose its --model")
    wide = {"vae": "48 channels, 4x16x16, width 256, statistics 00000000", "fps": "24"}
    save_file({"latents": torch.zeros(2, 48, 3, 4)}, tmp_path / "wide.safetensors", metadata=wide)
    assert "of another (48 channels, 4x16x16" in refuse("decode", tmp_path / "wide.safetensors")
    assert "of another (48 channels" in refuse("decode", tmp_path / "wide.safetensors", "--tile", "128x128")


def test_what_holds_no_latents(refuse, tmp_path):
    save_file({"weight": torch.zeros(2)}, tmp_path / "weights.safetensors")
    (tmp_path / "text.safetensors").write_text("no tensors at all, but long enough for a header")
    assert "[latents] file must be written by wan vae encode" in refuse("decode", tmp_path / "weights.safetensors")
    assert "safetensors header" in refuse("decode", tmp_path / "text.safetensors")
    assert "[latents] file must exist" in refuse("decode", tmp_path / "none.safetensors")


def test_latents_cut_short(refuse, run, clip, work, tmp_path):
    run("encode", clip)
    (tmp_path / "cut.safetensors").write_bytes((work / "clip.safetensors").read_bytes()[:-8])
    (work / "clip.safetensors").unlink()
    assert "bytes long as its header says" in refuse("decode", tmp_path / "cut.safetensors")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--chunk", "0"], "[vae] chunk must be at least 1 latent frame, got 0"),
        (["--chunk", "-2"], "[vae] chunk must be at least 1 latent frame, got -2"),
        (["--chunk", "many"], "[chunk] must be auto or a number of latent frames, got 'many'"),
        (["--tile", "big"], "[tile] must be auto, none or WIDTHxHEIGHT in pixels, got 'big'"),
        (["--tile", "100x100"], "[tile] sides must be multiples of 8 pixels, got 100x100; 128x128 would do"),
        (["--tile", "64x64"], "[tile] sides must be at least 128 pixels, twice the overlap, got 64x64"),
        (["--tile", "64x64", "--overlap", "40"], "[tile] sides must be at least 80 pixels, twice the overlap"),
        (["--overlap", "-8"], "[overlap] must be a multiple of 8 pixels, got -8; 8 would do"),
        (["--dtype", "int8"], "[dtype] must be one of fp32, bf16, got 'int8'"),
        (["--device", "tpu"], "[device] must be cpu, cuda or cuda:N, got 'tpu'"),
        (["-o", "a.mp4"], "[output] name must end in .safetensors, got 'a.mp4'"),
        (["-o", "none/a.safetensors"], "[output] directory must exist, got none; create it first"),
    ],
)
def test_options(refuse, clip, options, message):
    assert message in refuse("encode", clip, *options)


def test_too_little_memory(refuse, clip, monkeypatch):
    monkeypatch.setattr("wan_model.commands.vae.free_bytes", lambda device: 10**6)
    line = refuse("roundtrip", clip)
    assert line.startswith("[memory] roundtrip at 96x64 must have ") and "make the video smaller" in line


def test_interrupt_leaves_nothing(work, tmp_path):
    """SIGINT once the output is there under a temporary name: a video, whose encoder must be closed too."""
    clip = write_clip(tmp_path / "clip.mp4", 401, size=(32, 32))
    process = subprocess.Popen(
        [sys.executable, "-m", "wan_model.cli", "vae", "roundtrip", str(clip), "--chunk", "1", "-o", "a.mp4"],
        cwd=work, env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    deadline = time.monotonic() + 60
    while not list(work.glob(".*.part*")) and time.monotonic() < deadline and process.poll() is None:
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (130, "interrupted\n")
    assert os.listdir(work) == []
