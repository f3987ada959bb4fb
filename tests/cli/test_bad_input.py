"""Everything a user can get wrong ends in exit code 2, one line that helps, no traceback and no file."""

import os
import shutil
import subprocess
import sys

import pytest
import torch

from wan_model import plan
from wan_model.checkpoints import load_dit, save_official
from wan_model.cli import main
from wan_model.config import PRESETS
from wan_model.dit import ROPE_LENGTH
from wan_model.settings import MAX_POSITIONS

PROMPT = "a red circle moves right"
OTHER_PRESETS = [name for name in PRESETS if name != "tiny"]
QUICK = ("--size", "32x32", "--frames", "5", "--steps", "1")


@pytest.fixture
def refuse(tmp_path, capsys, monkeypatch):
    """Runs a command that must be refused in an empty directory; returns the one line it says."""
    work = tmp_path / "work"
    work.mkdir()
    monkeypatch.chdir(work)

    def run(*arguments: str) -> str:
        assert main(list(arguments)) == 2
        out, err = capsys.readouterr()
        assert out == ""
        *before, line = err.splitlines()
        assert line.startswith("error: "), err
        # What was picked for decoding is said before it can fail.
        assert all(each.startswith("chunk ") for each in before), err
        assert os.listdir(work) == []
        return line.removeprefix("error: ")

    return run


@pytest.fixture
def model_copy(tiny_directory, tmp_path):
    return shutil.copytree(tiny_directory, tmp_path / "tiny")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--frames", "16"], "[frames] must be 4n + 1, got 16; use 13 or 17"),
        (["--frames", "-3"], "[frames] must be 4n + 1, got -3; use 1"),
        (["--frames", "5001"], "[frames] must be at most 4093, got 5001"),
        (["--size", "100x96"], "[size] must be multiples of 16x16 pixels, got 100x96; use 96x96"),
        (["--size", "32768x32"], "[size] must be at most 16384x16384 pixels, got 32768x32"),
        (["--size", "large"], "[size] must be WIDTHxHEIGHT in pixels, got 'large'; for example 832x480"),
        (["--solver", "heun"], "[solver] must be one of unipc, dpm++, euler, got 'heun'"),
        (["--steps", "0"], "[steps] must be in [1, 1000], got 0"),
        (["--shift", "-1"], "[shift] must be positive, got -1.0; 1 leaves the schedule linear"),
        (["--fps", "0"], "[fps] must be in [1, 240], got 0"),
        (["--seed", "-1"], "[seed] must be in [0, 9223372036854775807], got -1"),
        (["--device", "tpu"], "[device] must be cpu, cuda or cuda:N, got 'tpu'"),
        (["-o", "out.avi"], "[output] name must end in .mp4, .gif, .png, got 'out.avi'"),
        (["-o", "out.png"], "[output] .png holds 1 frame, got 17; name it .mp4, or pass --frames 1"),
        (["-o", "none/out.mp4"], "[output] directory must exist, got none; create it first"),
        (["--preset", "15B"], "got '15B'"),
        (["--tile", "big"], "[tile] must be auto, none or WIDTHxHEIGHT in pixels, got 'big'"),
        (["--tile", "60x128"], "[tile] sides must be multiples of 8 pixels, got 60x128; 128x128 would do"),
        (["--frames", "many"], "Invalid value for '--frames'"),
        (["--colour", "red"], "No such option"),
    ],
)
def test_options(refuse, tiny_directory, options, message):
    assert message in refuse("generate", PROMPT, "--model", str(tiny_directory), *options)


def test_empty_prompt(refuse, tiny_directory):
    line = refuse("generate", "  ", "--model", str(tiny_directory))
    assert line == "[prompt] must not be empty, got '  '; say what should be seen"


def test_no_prompt(refuse):
    assert "PROMPT" in refuse("generate")


def test_position_limit_is_that_of_the_dit():
    assert MAX_POSITIONS == ROPE_LENGTH


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
@pytest.mark.parametrize("option", ["--device", "--noise-device"])
def test_cuda_where_there_is_none(refuse, tiny_directory, option):
    line = refuse("generate", PROMPT, "--model", str(tiny_directory), option, "cuda")
    assert line.startswith("[device] cuda must be present, got ") and line.endswith("choose cpu")


def test_unwritable_directory(refuse, tiny_directory, monkeypatch):
    # Root may write anywhere, so the system's answer is given for it.
    monkeypatch.setattr(os, "access", lambda *args: False)
    line = refuse("generate", PROMPT, "--model", str(tiny_directory))
    assert line.startswith("[output] directory must be writable")


def test_full_disk(refuse, tiny_directory, monkeypatch):
    def fail(path, frames, fps):
        path.write_bytes(b"half a video")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("wan_model.video_io._write_gif", fail)
    line = refuse("generate", PROMPT, "--model", str(tiny_directory), *QUICK, "-o", "out.gif")
    assert "No space left on device" in line


def test_out_of_memory_is_foreseen(refuse, tiny_directory, monkeypatch):
    monkeypatch.setattr(plan, "free_bytes", lambda device: 10**6)
    line = refuse("generate", PROMPT, "--model", str(tiny_directory), "--device", "cpu")
    assert line.startswith("[memory] cpu must have ") and "make the video smaller or shorter" in line


@pytest.mark.parametrize("command", [["plan"], ["generate", PROMPT]])
def test_unknown_model(refuse, command):
    assert "15B" in refuse(*command, "--model", "15B")


def test_preset_without_weights(refuse):
    for name in OTHER_PRESETS:
        assert "has no weights in this package" in refuse("generate", PROMPT, "--model", name)


def test_wrong_checkpoint_for_the_preset(refuse, tiny_directory):
    for name in OTHER_PRESETS:
        line = refuse("generate", PROMPT, "--model", str(tiny_directory), "--preset", name)
        assert f"must hold {name}, got tiny" in line


def test_wrong_tensors_for_the_config(refuse, model_copy):
    (model_copy / "config.json").write_text((model_copy / "config.json").read_text().replace('"t2v"', '"i2v"'))
    assert refuse("generate", PROMPT, "--model", str(model_copy))


def test_missing_file(refuse, model_copy):
    (model_copy / "diffusion_pytorch_model.safetensors").unlink()
    line = refuse("generate", PROMPT, "--model", str(model_copy), *QUICK)
    assert "diffusion_pytorch_model" in line


def test_missing_tokenizer(refuse, model_copy):
    shutil.rmtree(model_copy / "google")
    assert "tokenizer" in refuse("generate", PROMPT, "--model", str(model_copy), *QUICK)


def shard(directory) -> list[str]:
    """Splits the DiT of `directory` into shards; returns their names."""
    save_official(directory, dits=[load_dit(directory)], max_shard_bytes=2_000_000)
    return sorted(path.name for path in directory.glob("diffusion_pytorch_model-*.safetensors"))


def test_missing_shard(refuse, model_copy):
    name = shard(model_copy)[1]
    (model_copy / name).unlink()
    line = refuse("generate", PROMPT, "--model", str(model_copy), *QUICK)
    assert name in line and "must exist" in line


def test_truncated_shard(refuse, model_copy):
    name = shard(model_copy)[-1]
    content = (model_copy / name).read_bytes()
    (model_copy / name).write_bytes(content[:-100])
    line = refuse("generate", PROMPT, "--model", str(model_copy), *QUICK)
    assert name in line and f"must be {len(content)} bytes long" in line


@pytest.mark.parametrize("header", [b"", b"\xff" * 8, b"\x40" + b"\0" * 7 + b"not json" * 20])
def test_corrupt_header(refuse, model_copy, header):
    (model_copy / "diffusion_pytorch_model.safetensors").write_bytes(header)
    line = refuse("generate", PROMPT, "--model", str(model_copy), *QUICK)
    assert "diffusion_pytorch_model.safetensors" in line and "header" in line


def test_truncated_vae(refuse, model_copy):
    path = next(path for path in model_copy.iterdir() if path.name.startswith("Wan2.1_VAE.") and path.suffix != ".json")
    path.write_bytes(path.read_bytes()[:-1000])
    assert path.name in refuse("generate", PROMPT, "--model", str(model_copy), *QUICK)


def test_plan(refuse):
    assert "[frames] must be 4n + 1" in refuse("plan", "--frames", "80")
    assert "[size] must be multiples of" in refuse("plan", "--size", "1281x720")
    assert "[device] must be one of cpu, cuda, got 'tpu'" in refuse("plan", "--device", "tpu")


def test_train(refuse):
    assert "[train] recipe must be a file, got none.toml; see recipes/" in refuse("train", "none.toml")


def test_convert(refuse, tiny_directory):
    assert "[convert] layout must be one of" in refuse("convert", str(tiny_directory), "other", "--to", "onnx")
    assert "must exist, got none" in refuse("convert", "none", "other")
    assert "[convert] target must not exist yet" in refuse("convert", str(tiny_directory), str(tiny_directory.parent))


def test_interrupt_leaves_nothing(tiny_directory, tmp_path):
    """SIGINT while sampling; the preview file tells that sampling has begun."""
    import signal
    import time

    command = [sys.executable, "-m", "wan_model.cli", "generate", PROMPT, "--model", str(tiny_directory)]
    process = subprocess.Popen(
        [*command, "--steps", "1000", "--size", "32x32", "--preview"],
        cwd=tmp_path, env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    deadline = time.monotonic() + 60
    while not (tmp_path / "out.preview.png").exists() and time.monotonic() < deadline and process.poll() is None:
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (130, "interrupted\n")
    assert os.listdir(tmp_path) == []


def test_a_bug_keeps_its_traceback(monkeypatch, capsys):
    def broken(*args, **options):
        raise KeyError("a bug of ours")

    monkeypatch.setattr("wan_model.commands.plan.make_plan", broken)
    with pytest.raises(KeyError):
        main(["plan"])


def test_debug_shows_where(monkeypatch):
    monkeypatch.setenv("WAN_DEBUG", "1")
    with pytest.raises(ValueError, match="15B"):
        main(["plan", "--model", "15B"])
