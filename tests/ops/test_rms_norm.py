"""What is special to rms_norm."""

import math
import re

import pytest
import torch

import wan_kernels as wk


def test_row_of_rms_one_keeps_its_values_and_scale_does_not_matter() -> None:
    x = torch.tensor([[3.0, -4.0, 0.0, 5.0]])
    wanted = x / math.sqrt(50 / 4)
    torch.testing.assert_close(wk.rms_norm(x, torch.ones(4), eps=0.0), wanted)
    torch.testing.assert_close(wk.rms_norm(1000 * x, torch.ones(4), eps=0.0), wanted)


def test_rounds_before_the_weight() -> None:
    x, weight = torch.randn(64, 96, generator=torch.Generator().manual_seed(0)).bfloat16(), torch.full((96,), 1.7)
    normalised = wk.rms_norm(x, torch.ones(96))
    assert torch.equal(wk.rms_norm(x, weight), (normalised.float() * 1.7).bfloat16())


@pytest.mark.parametrize("stray", [float("nan"), float("inf")])
def test_a_stray_value_stays_in_its_row(stray: float) -> None:
    x = torch.ones(3, 16)
    x[1, 4] = stray
    y = wk.rms_norm(x, torch.ones(16))
    assert y[1, 4].isnan()
    assert y[[0, 2]].isfinite().all()


@pytest.mark.parametrize(
    ("x", "weight", "eps", "error", "message"),
    [
        (torch.ones(2, 8), torch.ones(4), 1e-6, ValueError, "weight must have shape (8), got (4,)"),
        (torch.ones(2, 8), torch.ones(8, dtype=torch.int32), 1e-6, TypeError, "weight must be one of float32"),
        ([1.0], torch.ones(1), 1e-6, TypeError, "x must be a tensor, got list"),
        (torch.tensor(1.0), torch.ones(1), 1e-6, ValueError, "x must be [..., D], got a scalar"),
        (
            torch.ones(2, 8),
            torch.ones(8, device="meta"),
            1e-6,
            ValueError,
            "weight must be on x's device cpu, got meta",
        ),
        (torch.ones(2, 8), torch.ones(8), -1.0, ValueError, "eps must be at least 0, got -1.0"),
        (torch.ones(2, 8), torch.ones(8), float("nan"), ValueError, "eps must be at least 0, got nan"),
    ],
)
def test_refuses(x, weight, eps, error, message) -> None:
    with pytest.raises(error, match=re.escape(f"[rms_norm] {message}")):
        wk.rms_norm(x, weight, eps=eps)
