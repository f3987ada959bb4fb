"""What is special to channel_rms_norm_silu."""

import re

import pytest
import torch
from torch.nn import functional as F

import wan_kernels as wk


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def test_as_the_official_norm_then_silu() -> None:
    x, weight = normal(2, 12, 3, 4, 5), normal(12, seed=1)
    wanted = F.silu(F.normalize(x, dim=1) * 12**0.5 * weight.view(12, 1, 1, 1))
    torch.testing.assert_close(wk.channel_rms_norm_silu(x, weight), wanted)


def test_without_silu_every_pixel_has_rms_one() -> None:
    y = wk.channel_rms_norm_silu(normal(2, 12, 4, 5), torch.ones(12), apply_silu=False)
    torch.testing.assert_close(y.square().mean(1), torch.ones(2, 4, 5))


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last_3d])
def test_layout_stays(layout: torch.memory_format) -> None:
    x = normal(2, 12, 3, 4, 5).contiguous(memory_format=layout)
    y = wk.channel_rms_norm_silu(x, torch.ones(12))
    assert y.stride() == x.stride()
    torch.testing.assert_close(y, wk.channel_rms_norm_silu(x.contiguous(), torch.ones(12)))


def test_frames_do_not_see_each_other() -> None:
    x = normal(1, 12, 3, 4, 5)
    y = wk.channel_rms_norm_silu(x, torch.ones(12))
    torch.testing.assert_close(y[:, :, 1], wk.channel_rms_norm_silu(x[:, :, 1].contiguous(), torch.ones(12)))


def test_zero_pixels_stay_zero_with_a_finite_gradient() -> None:
    x = torch.zeros(1, 12, 2, 2, requires_grad=True)
    y = wk.channel_rms_norm_silu(x, torch.ones(12))
    (grad,) = torch.autograd.grad(y.sum(), x)
    assert (y == 0).all()
    assert grad.isfinite().all()


def test_a_nan_stays_in_its_pixel() -> None:
    x = normal(1, 12, 3, 4)
    x[0, 5, 1, 2] = float("nan")
    assert wk.channel_rms_norm_silu(x, torch.ones(12)).isnan().any(1).nonzero().tolist() == [[0, 1, 2]]


@pytest.mark.parametrize(
    ("x", "weight", "error", "message"),
    [
        (
            torch.ones(2, 8, 3),
            torch.ones(8),
            ValueError,
            "x must be [B, C, Y, X] or [B, C, T, Y, X], got shape (2, 8, 3)",
        ),
        (torch.ones(2, 8, 3, 3), torch.ones(3), ValueError, "weight must have shape (8), got (3,)"),
        (torch.ones(2, 8, 3, 3).int(), torch.ones(8), TypeError, "x must be one of float32"),
        (torch.ones(2, 8, 3, 3), torch.ones(8).to("meta"), ValueError, "weight must be on x's device cpu, got meta"),
    ],
)
def test_refuses(x, weight, error, message) -> None:
    with pytest.raises(error, match=re.escape(f"[channel_rms_norm_silu] {message}")):
        wk.channel_rms_norm_silu(x, weight)
