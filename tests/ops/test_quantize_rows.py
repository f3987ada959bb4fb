"""What is special to quantize_rows."""

import re

import pytest
import torch

import wan_kernels as wk
from wan_kernels import dispatch

BACKENDS = [name for name in dispatch.names("quantize_rows") if dispatch.get("quantize_rows", name).unavailable is None]
FP8 = torch.float8_e4m3fn


@pytest.mark.parametrize("backend", BACKENDS)
def test_codes_of_a_known_row(backend: str) -> None:
    with dispatch.use_backend(quantize_rows=backend):
        q, scale = wk.quantize_rows(torch.tensor([[-254.0, 1.0, 3.0, 5.0, 0.0]]))
    assert q.tolist() == [[-127, 0, 2, 2, 0]]  # halves go to the even code
    assert scale.tolist() == [2.0]


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("dtype", [torch.int8, FP8])
def test_error_is_half_a_step(backend: str, dtype: torch.dtype) -> None:
    x = torch.randn(64, 333, generator=torch.Generator().manual_seed(0))
    with dispatch.use_backend(quantize_rows=backend):
        q, scale = wk.quantize_rows(x, dtype)
    error = (q.float() * scale.unsqueeze(-1) - x).abs()
    step = scale.unsqueeze(-1) * (1 if dtype is torch.int8 else (q.float().abs() / 8).clamp_min(2.0**-9))
    assert (error <= 0.5001 * step).all()


@pytest.mark.parametrize("backend", BACKENDS)
def test_every_float8_value_survives(backend: str) -> None:
    """Codes of what codes stand for, under a scale of exactly 1, and of the middles between them."""
    values = torch.arange(127, dtype=torch.uint8).view(FP8).float()
    middles = (values[:-1] + values[1:]) / 2
    rows = torch.cat((values, -values, middles, -middles)).unsqueeze(0)
    with dispatch.use_backend(quantize_rows=backend):
        q, scale = wk.quantize_rows(rows, FP8)
    assert scale.item() == 1.0
    torch.testing.assert_close(q.float(), rows.to(FP8).float(), rtol=0, atol=0)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("stray", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("dtype", [torch.int8, FP8])
def test_a_stray_value_ruins_its_own_row_only(backend: str, stray: float, dtype: torch.dtype) -> None:
    x = torch.ones(3, 40)
    x[1, 33] = stray
    with dispatch.use_backend(quantize_rows=backend):
        q, scale = wk.quantize_rows(x, dtype)
    assert q[1].float().count_nonzero() == 0
    assert (q.float() * scale.unsqueeze(-1))[1].isnan().all()
    torch.testing.assert_close((q.float() * scale.unsqueeze(-1))[::2], x[::2])


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_row_of_zeros_has_a_scale_that_can_be_inverted(backend: str) -> None:
    with dispatch.use_backend(quantize_rows=backend):
        q, scale = wk.quantize_rows(torch.zeros(2, 8))
    assert q.count_nonzero() == 0
    assert (scale > 0).all() and (1 / scale).isfinite().all()


def test_refuses() -> None:
    with pytest.raises(
        TypeError, match=re.escape("[quantize_rows] dtype must be one of int8, float8_e4m3fn, got torch.")
    ):
        wk.quantize_rows(torch.ones(2), torch.int32)
    with pytest.raises(ValueError, match=re.escape("[quantize_rows] x must be [..., D], got a scalar")):
        wk.quantize_rows(torch.tensor(1.0))
    with pytest.raises(TypeError, match=re.escape("[quantize_rows] x must be one of float32")):
        wk.quantize_rows(torch.ones(2, dtype=torch.int8))


def test_is_not_differentiable() -> None:
    _, scale = wk.quantize_rows(torch.ones(2, 4, requires_grad=True))
    with pytest.raises(RuntimeError, match=re.escape("[quantize_rows] must run without gradients")):
        scale.sum().backward()
