"""The picture-level check of 8-bit attention: that it swaps what it says, and that its figures are right."""

import math

import pytest
import torch
from torch import Tensor

from benchmarks import attention_check
from benchmarks.attention_check import Run, attention_on_codes, figures
from wan_model.pipeline import load_pipeline


@torch.no_grad()
def test_attention_alone_runs_on_codes(tiny_directory) -> None:
    dit = load_pipeline(tiny_directory, device="cpu").dits[0]
    generator = torch.Generator().manual_seed(0)
    latents = torch.randn(1, dit.config.in_dim, 2, 4, 4, generator=generator)
    context = torch.randn(1, 7, dit.config.text_dim, generator=generator)

    def velocity() -> Tensor:
        return dit(latents, torch.tensor([500.0]), context)

    plain = velocity()
    with attention_on_codes():
        coded = velocity()
    assert 1e-5 < attention_check.relative_l2(coded, plain)[0] < 5e-2
    assert torch.equal(velocity(), plain)


def run(steps: list[float], end: float, seen: str) -> Run:
    """Two prompts in two batches; each latent holds two values."""
    wanted = {"colour": "red", "shape": "circle", "motion": "left", "background": "blue"}
    rows = [{"prompt": "", "wanted": wanted, "seen": wanted | {"colour": seen}} for _ in range(2)]
    return Run([[torch.tensor([[value, 1.0]])] * 2 for value in steps], [torch.tensor([[end, 1.0]])] * 2, rows)


def test_figures_are_of_what_each_step_left() -> None:
    truth, found = run([0.0, 0.0, 0.0], 0.0, "red"), run([0.0, 0.1, 0.2], 0.5, "green")
    got = figures(found, truth)
    assert got["relative_l2_by_step"] == pytest.approx([0.1, 0.2, 0.5])
    # A span of 1, and a mean square of 0.5**2 / 2.
    assert got["latent_psnr_db"] == got["latent_psnr_db_least"] == round(10 * math.log10(8), 2)
    assert got["rates"] == {"colour": 0.0, "shape": 1.0, "motion": 1.0, "background": 1.0, "direction": 1.0}
