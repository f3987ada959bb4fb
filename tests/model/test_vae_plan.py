"""The chunk that is picked, and whether the memory foreseen for it is what a process takes."""

import os
import subprocess
import sys

import pytest
import torch

from wan_model.config import VAEConfig
from wan_model.vae import WanVAE
from wan_model.vae_plan import MARGIN, MAX_CHUNK, peak_bytes, plan_vae

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
    assert plan_vae(vae, HEIGHT, WIDTH, None).chunk == 1
    with pytest.raises(ValueError, match=r"\[memory\] decode at 128x96 must have .* at 1 latent frame at a time, got"):
        plan_vae(vae, HEIGHT, WIDTH, foreseen(1) - 1, direction="decode")


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
