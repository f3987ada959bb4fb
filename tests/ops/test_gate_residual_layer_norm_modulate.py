"""What is special to gate_residual_layer_norm_modulate."""

import re
from typing import Any

import pytest
import torch
from torch import Tensor

import wan_kernels as wk
from wan_kernels import dispatch
from wan_kernels.common import triton

INTERPRETED = pytest.mark.skipif(
    not triton.is_interpreting(), reason="a GPU is here: kernels are compiled for it, and nothing is interpreted"
)
DIFFERENTIABLE = ["cpu", "reference", pytest.param("triton", marks=INTERPRETED)]
X, ROW, ROWS, WIDE = torch.ones(2, 3, 8), torch.ones(2, 1, 8), torch.ones(2, 2, 8), torch.ones(8)
INDEX = torch.zeros(2, 3, dtype=torch.int32)


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def inputs(dtype: torch.dtype = torch.float32, width: int = 77) -> tuple[tuple[Tensor, ...], dict[str, Any]]:
    """x, y, gate, scale and shift, and what goes by name."""
    x, y = normal(2, 6, width), normal(2, 6, width, seed=1)
    tables = (normal(2, 3, width, seed=seed) for seed in (2, 3, 4))
    index = torch.tensor([[0, 0, 1, 1, 2, 2], [2, 1, 0, 2, 1, 0]])
    return (x.to(dtype), y.bfloat16(), *tables), {
        "weight": normal(width, seed=5),
        "bias": normal(width, seed=6),
        "index": index,
        "out_dtype": torch.bfloat16,
    }


@pytest.mark.parametrize("backend", ["cpu", "reference"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_is_bit_for_bit_the_two_rooms(backend: str, dtype: torch.dtype) -> None:
    (x, y, gate, scale, shift), options = inputs(dtype)
    with dispatch.use_backend(backend):
        stream, normed = wk.gate_residual_layer_norm_modulate(x, y, gate, scale, shift, **options)
        wanted = wk.gate_residual(x, y, gate, index=options["index"])
        assert torch.equal(stream, wanted)
        assert torch.equal(normed, wk.layer_norm_modulate(wanted, scale, shift, **options))


@pytest.mark.parametrize("backend", ["cpu", "reference"])
def test_no_gate_is_a_plain_sum(backend: str) -> None:
    (x, y, _, scale, shift), options = inputs()
    with dispatch.use_backend(backend):
        stream, normed = wk.gate_residual_layer_norm_modulate(x, y, None, scale, shift, **options)
        assert torch.equal(stream, x + y)
        assert torch.equal(normed, wk.layer_norm_modulate(x + y, scale, shift, **options))


@pytest.mark.parametrize("backend", DIFFERENTIABLE)
@pytest.mark.parametrize("used", [0, 1])
def test_gradients_from_one_output_alone(backend: str, used: int) -> None:
    """Those of the rooms one after the other; zeros for what the output does not depend on."""
    tensors, options = inputs()
    options["out_dtype"] = torch.float32
    sources = [each.requires_grad_() for each in (*tensors, options["weight"], options["bias"])]
    x, y, gate, scale, shift = tensors
    grad = normal(*x.shape, seed=7)
    with dispatch.use_backend(backend):
        out = wk.gate_residual_layer_norm_modulate(*tensors, **options)[used]
        found = torch.autograd.grad(out, sources, grad, materialize_grads=True)
        stream = wk.gate_residual(x, y, gate, index=options["index"])
        apart = (stream, wk.layer_norm_modulate(stream, scale, shift, **options))[used]
        wanted = torch.autograd.grad(apart, sources, grad, materialize_grads=True)
    for got, each in zip(found, wanted, strict=True):
        torch.testing.assert_close(got, each)


@pytest.mark.parametrize("backend", DIFFERENTIABLE)
def test_only_a_gradient_that_is_zero_is_asked_for(backend: str) -> None:
    """The stream does not depend on scale, though autograd believes that every output does."""
    (x, y, gate, scale, shift), options = inputs()
    with dispatch.use_backend(backend):
        stream, _ = wk.gate_residual_layer_norm_modulate(x, y, gate, scale.requires_grad_(), shift, **options)
        stream.sum().backward()
    assert scale.grad is not None and scale.grad.count_nonzero() == 0


def test_a_nan_stays_in_its_element_of_the_stream_and_its_token_of_the_norm() -> None:
    y = normal(1, 3, 16)
    y[0, 1, 5] = float("nan")
    stream, normed = wk.gate_residual_layer_norm_modulate(normal(1, 3, 16), y)
    assert stream.isnan().sum() == 1
    assert normed[0, 1].isnan().all()
    assert normed[0, [0, 2]].isfinite().all()


@pytest.mark.parametrize(
    ("args", "options", "error", "message"),
    [
        ((X[0], X[0]), {}, ValueError, "x must be [B, L, D], got shape (3, 8)"),
        ((X, X[:, :2]), {}, ValueError, "y must have shape (2, 3, 8), got (2, 2, 8)"),
        ((X, X.long()), {}, TypeError, "y must be one of float32"),
        ((X, X, ROWS), {}, ValueError, "gate must have one row where index is None, got 2"),
        ((X, X, ROW, ROW), {}, ValueError, "scale and shift must come together, got only scale"),
        ((X, X, ROWS, ROW, ROW), {"index": INDEX}, ValueError, "scale must have shape (2, 2, 8), got (2, 1, 8)"),
        ((X, X), {"index": INDEX}, ValueError, "index must come with scale and shift, got it alone"),
        ((X, X), {"bias": WIDE}, ValueError, "weight and bias must come together, got only bias"),
        ((X, X, ROW.to("meta")), {}, ValueError, "gate must be on x's device cpu, got meta"),
        ((X, X), {"out_dtype": torch.int8}, TypeError, "out_dtype must be one of float32"),
    ],
)
def test_refuses(args: Any, options: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=re.escape(f"[gate_residual_layer_norm_modulate] {message}")):
        wk.gate_residual_layer_norm_modulate(*args, **options)
