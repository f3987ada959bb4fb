"""The chunk and the tile that are picked, and whether the memory foreseen for it is what a process takes."""

import os
import subprocess
import sys
from types import SimpleNamespace

import pytest
import torch

from wan_model.config import VAEConfig
from wan_model.vae import WanVAE
from wan_model.vae_plan import MARGIN, MAX_CHUNK, Costs, candidates, least_bytes, parse_tile, peak_bytes, plan_vae
from wan_model.vae_tiles import whole

CONFIG = VAEConfig(
    dim=16, dim_mult=(1, 1, 2, 2), num_res_blocks=1, latents_mean=(0.0,) * 16, latents_std=(1.0,) * 16
)  # fmt: skip
HEIGHT, WIDTH = 96, 128


@pytest.fixture(scope="module")
def vae() -> WanVAE:
    return WanVAE(CONFIG)


def foreseen(chunk: int, direction: str = "decode") -> int:
    return peak_bytes(CONFIG, HEIGHT, WIDTH, chunk, torch.float32, direction)


def test_memory_grows_by_the_same_amount_with_each_latent_frame():
    """So that two traces tell all chunks."""
    step = foreseen(2, "roundtrip") - foreseen(1, "roundtrip")
    assert foreseen(4, "roundtrip") == pytest.approx(foreseen(1, "roundtrip") + 3 * step, rel=0.02)


def test_more_memory_gives_longer_chunks_until_they_no_longer_pay(vae):
    one, step = foreseen(1), foreseen(2) - foreseen(1)
    for free, chunk, why in (
        (one, 1, "more would not fit"),
        (one + 2 * step, 3, "more would not fit"),
        (one + 50 * step, MAX_CHUNK, "more would not be faster"),
    ):
        plan = plan_vae(vae, HEIGHT, WIDTH, free, direction="decode")
        assert plan.chunk == chunk and plan.why.endswith(why)
        assert plan.why.startswith(f"chunk {chunk}: decode at {WIDTH}x{HEIGHT} takes ")
        assert plan.peak_bytes <= free


def test_unknown_memory_gives_single_latents_and_too_little_is_refused(vae):
    plan = plan_vae(vae, HEIGHT, WIDTH, None)
    assert (plan.chunk, plan.tiling) == (1, whole(HEIGHT // 8, WIDTH // 8))
    least = least_bytes(CONFIG, 360, 640, torch.float32, "decode")
    assert plan_vae(vae, 360, 640, least, direction="decode").peak_bytes == least
    message = r"\[memory\] decode at 640x360 must have .* at 1 latent frame at a time in the smallest tiles, got"
    with pytest.raises(ValueError, match=message):
        plan_vae(vae, 360, 640, least - 1, direction="decode")
    with pytest.raises(ValueError, match=r"\[memory\] decode at 128x96 must have .* at 1 latent frame at a time, got"):
        plan_vae(vae, HEIGHT, WIDTH, foreseen(1) - 1, direction="decode", tile="none")


@pytest.mark.parametrize("direction", ["encode", "decode"])
def test_memory_is_proportional_to_the_area_of_a_frame(direction):
    """So that the trace of whole frames tells that of every tile."""
    for chunk in (1, 2):
        large, small = (peak_bytes(CONFIG, h, w, chunk, torch.float32, direction) for h, w in ((192, 256), (64, 48)))
        assert large == pytest.approx(small * (192 * 256) / (64 * 48), rel=0.01)


def test_whole_frames_where_they_fit_and_the_tiles_of_least_work_where_not(vae):
    height, width = 360, 640
    whole_bytes = peak_bytes(CONFIG, height, width, 1, torch.float32, "decode")
    plans = [
        plan_vae(vae, height, width, int(whole_bytes * part), direction="decode", num_frames=17)
        for part in (1, 0.99, 0.5, 0.3, 0.2)
    ]
    assert [plan.tiling.num_tiles for plan in plans] == sorted(plan.tiling.num_tiles for plan in plans)
    assert plans[0].tiling.num_tiles == 1 and plans[1].tiling.num_tiles == 2
    costs = Costs(whole_bytes, peak_bytes(CONFIG, height, width, 2, torch.float32, "decode") - whole_bytes, 0)
    for plan, part in zip(plans, (1, 0.99, 0.5, 0.3, 0.2), strict=True):
        assert plan.peak_bytes <= whole_bytes * part
        # None of less work would have fitted.
        less = [each for each in candidates((45, 80), 8) if each.area < plan.tiling.area]
        assert all(costs.peak(each, 1) > whole_bytes * part for each in less)
    assert plans[1].why.startswith("chunk 2, 2 tiles of 352x360: decode at 640x360 takes ")
    assert "; whole frames would take " in plans[1].why and " of disk in " in plans[1].why


def test_tiles_that_are_given_are_obeyed_and_made_no_larger_than_needed(vae):
    plan = plan_vae(vae, HEIGHT, WIDTH, 1, direction="encode", chunk=3, tile=(96, 64), overlap=32)
    assert (plan.chunk, plan.tiling.tile, plan.tiling.num_tiles, plan.tiling.overlap) == (3, (8, 10), 4, 4)
    assert plan_vae(vae, HEIGHT, WIDTH, 1, chunk=1, tile="none").tiling.num_tiles == 1
    assert plan_vae(vae, HEIGHT, WIDTH, 10**9, tile=(640, 640)).tiling == plan_vae(vae, HEIGHT, WIDTH, 10**9).tiling


@pytest.mark.parametrize(
    ("tile", "overlap", "message"),
    [
        ((100, 64), 16, r"\[tile\] sides must be multiples of 8 pixels, got 100x64; 104x64 would do"),
        ((64, 96), None, r"\[tile\] sides must be at least 128 pixels, twice the overlap, got 64x96; 128x128 would do"),
        ((96, 96), 56, r"\[tile\] sides must be at least 112 pixels, twice the overlap, got 96x96; 112x112 would do"),
        ("auto", 20, r"\[overlap\] must be a multiple of 8 pixels, got 20; 24 would do"),
        ("auto", 0, r"\[overlap\] must be a multiple of 8 pixels, got 0; 8 would do"),
    ],
)
def test_tiles_that_are_none_are_named(vae, tile, overlap, message):
    with pytest.raises(ValueError, match=message):
        plan_vae(vae, HEIGHT, WIDTH, None, tile=tile, overlap=overlap)


def test_a_tile_is_read_from_text():
    assert [parse_tile(text) for text in ("auto", "none", "640x480")] == ["auto", "none", (640, 480)]
    with pytest.raises(ValueError, match=r"\[tile\] must be auto, none or WIDTHxHEIGHT in pixels, got 'big'"):
        parse_tile("big")


def test_a_disk_too_small_for_tiles_is_refused(vae, monkeypatch):
    monkeypatch.setattr("wan_model.vae_plan.shutil.disk_usage", lambda folder: SimpleNamespace(free=10**6))
    with pytest.raises(
        ValueError, match=r"\[disk\] .* must have .* MB free for what tiles leave there, got 1.0 MB; let"
    ):
        plan_vae(vae, HEIGHT, WIDTH, None, tile=(64, 64), overlap=8, num_frames=81)
    plan_vae(vae, HEIGHT, WIDTH, None, num_frames=81)


MEASURE = """
import sys, torch
from wan_model.vae import WanVAE
from tests_config import CONFIG, HEIGHT, WIDTH

def status(name):
    return next(int(line.split()[1]) * 1024 for line in open("/proc/self/status") if line.startswith(name))

def latents(count, y, x):
    for _ in range(count):
        yield torch.zeros(1, 16, 1, y, x)

torch.set_num_threads(1)
vae = WanVAE(CONFIG).requires_grad_(False)
for _ in vae.decode_stream(latents(3, 2, 2)):
    pass
before = status("VmRSS")
open("/proc/self/clear_refs", "w").write("5")
for _ in vae.decode_stream(latents(int(sys.argv[1]), HEIGHT // 8, WIDTH // 8)):
    pass
print(status("VmHWM") - before)
"""


# Only Linux tells a process the most memory it held since a moment of its choosing; there it must always be told.
@pytest.mark.skipif(sys.platform != "linux", reason="/proc/self/clear_refs is Linux's")
def test_resident_memory_is_as_foreseen_and_flat(tmp_path):
    """A process that decodes 17 frames and one that decodes 65."""
    text = f"from wan_model.config import VAEConfig\nCONFIG = {CONFIG!r}\nHEIGHT, WIDTH = {HEIGHT}, {WIDTH}\n"
    (tmp_path / "tests_config.py").write_text(text)
    # Large blocks straight from the system and back: what the heap keeps for later differs from run to run.
    environment = {**os.environ, "MALLOC_MMAP_THRESHOLD_": "65536"}
    environment["PYTHONPATH"] = os.pathsep.join([str(tmp_path), *sys.path])

    def resident(num_latents: int) -> int:
        command = [sys.executable, "-c", MEASURE, str(num_latents)]
        return int(subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout)

    short, long = resident(5), resident(17)
    assert long == pytest.approx(short, rel=0.05)
    # Whatever the size, kernels that are made at their first call take some 10 MB.
    traced = foreseen(1) / MARGIN
    assert 0.5 * traced < long < MARGIN * traced + 15e6
