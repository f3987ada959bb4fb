"""What is special to gate_residual."""

import re

import pytest
import torch

import wan_kernels as wk


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def test_closed_gate_returns_the_stream_and_an_own_copy() -> None:
    x = normal(2, 5, 16)
    out = wk.gate_residual(x, normal(2, 5, 16, seed=1), torch.zeros(2, 1, 16))
    assert torch.equal(out, x)
    assert out.data_ptr() != x.data_ptr()


def test_float32_stream_keeps_what_bfloat16_would_lose() -> None:
    x, y, gate = torch.full((1, 1, 8), 256.0), torch.full((1, 1, 8), 0.125).bfloat16(), torch.ones(1, 1, 8)
    assert torch.equal(wk.gate_residual(x, y, gate), torch.full((1, 1, 8), 256.125))


def test_rows_by_index() -> None:
    x, y, gate = torch.zeros(1, 4, 8), normal(1, 4, 8), normal(1, 2, 8, seed=1)
    index = torch.tensor([[1, 0, 0, 1]])
    assert torch.equal(wk.gate_residual(x, y, gate, index=index), y * gate[:, index[0]])


def test_gradient_of_the_stream_is_passed_on_untouched() -> None:
    x = normal(2, 5, 16).requires_grad_()
    grad = normal(2, 5, 16, seed=3)
    (found,) = torch.autograd.grad(wk.gate_residual(x, normal(2, 5, 16), normal(2, 1, 16)), x, grad)
    assert torch.equal(found, grad)
    assert found.data_ptr() != grad.data_ptr()


def test_a_nan_stays_in_its_element() -> None:
    y = normal(1, 3, 8)
    y[0, 1, 5] = float("nan")
    assert wk.gate_residual(normal(1, 3, 8), y, torch.ones(1, 1, 8)).isnan().sum() == 1


X, GATE = torch.ones(2, 3, 8), torch.ones(2, 1, 8)


@pytest.mark.parametrize(
    ("args", "error", "message"),
    [
        ((X, X[:, :2], GATE), ValueError, "y must have shape (2, 3, 8), got (2, 2, 8)"),
        ((X, X, X[:, :2]), ValueError, "gate must have one row where index is None, got 2"),
        ((X, X, GATE[..., :4]), ValueError, "gate must have shape (2, *, 8), got (2, 1, 4)"),
        ((X[0], X[0], GATE), ValueError, "x must be [B, L, D], got shape (3, 8)"),
        ((X, X.long(), GATE), TypeError, "y must be one of float32"),
        ((X, X, GATE.to("meta")), ValueError, "gate must be on x's device cpu, got meta"),
    ],
)
def test_refuses(args, error, message) -> None:
    with pytest.raises(error, match=re.escape(f"[gate_residual] {message}")):
        wk.gate_residual(*args)
