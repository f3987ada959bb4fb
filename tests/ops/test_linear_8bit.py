"""What is special to linear_8bit: accuracy in decibels, packing, what it refuses."""

import re
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

import wan_kernels as wk
from wan_kernels import dispatch
from wan_kernels.ops.linear_8bit.packing import unpack

INT8, FP8 = torch.int8, torch.float8_e4m3fn
BACKENDS = [name for name in dispatch.names("linear_8bit") if dispatch.get("linear_8bit", name).unavailable is None]


def sqnr(got: Tensor, wanted: Tensor) -> float:
    """Signal to quantisation noise, in decibels."""
    noise = (got.double() - wanted.double()).square().sum()
    return (10 * torch.log10(wanted.double().square().sum() / noise)).item()


def refusal(backend: str, dtype: torch.dtype) -> str | None:
    q, scale = wk.quantize_rows(torch.ones(32, 64), dtype)
    args = (q, scale, q, scale, torch.bfloat16, None, None, None, None, False, False)
    return dispatch.get("linear_8bit", backend).reject(*args)


@pytest.mark.parametrize("dtype", [INT8, FP8])
@pytest.mark.parametrize("backend", BACKENDS)
def test_accuracy(backend: str, dtype: torch.dtype) -> None:
    """At least 25 dB against the product in float32, 50 dB against that of the dequantised operands."""
    if (reason := refusal(backend, dtype)) is not None:
        pytest.skip(f"linear_8bit/{backend} {reason}")
    generator = torch.Generator().manual_seed(0)
    x, weight = torch.randn(160, 1536, generator=generator), torch.randn(256, 1536, generator=generator) / 1536**0.5
    (q, q_scale), (w, w_scale) = wk.quantize_rows(x, dtype), wk.quantize_rows(weight, dtype)
    with dispatch.use_backend(linear_8bit=backend):
        got = wk.linear_8bit(q, q_scale, w, w_scale)
    dequantised = F.linear(q.double() * q_scale.unsqueeze(-1), w.double() * w_scale.unsqueeze(-1))
    assert sqnr(got, F.linear(x.double(), weight.double())) >= 25
    assert sqnr(got, dequantised) >= 50


@pytest.mark.parametrize("shape", [(16, 4), (61, 127), (1, 1), (0, 8), (33, 64)])
def test_packing_round_trips(shape: tuple[int, int]) -> None:
    weight = torch.randint(-127, 128, shape, dtype=INT8, generator=torch.Generator().manual_seed(0))
    packed = wk.pack_linear_8bit(weight)
    assert packed.is_contiguous()
    assert torch.equal(unpack(packed, *shape), weight)
    if dispatch.get("linear_8bit", "cpu").unavailable is None:
        from wan_kernels import native

        same = torch.full_like(packed, -128)
        native.library().pack_linear_8bit(same, weight)
        assert torch.equal(same, packed)


def test_packed_and_plain_weights_give_the_same() -> None:
    generator = torch.Generator().manual_seed(0)
    q, q_scale = wk.quantize_rows(torch.randn(3, 50, 200, generator=generator))
    w, w_scale = wk.quantize_rows(torch.randn(70, 200, generator=generator))
    packed = wk.linear_8bit(q, q_scale, wk.pack_linear_8bit(w), w_scale)
    assert torch.equal(wk.linear_8bit(q, q_scale, w, w_scale), packed)


def test_the_residual_stream_keeps_its_dtype() -> None:
    q, q_scale = wk.quantize_rows(torch.randn(1, 4, 32))
    w, w_scale = wk.quantize_rows(torch.randn(8, 32))
    residual, gate = torch.randn(1, 4, 8), torch.randn(1, 1, 8)
    got = wk.linear_8bit(q, q_scale, w, w_scale, residual=residual, gate=gate)
    y = wk.linear_8bit(q, q_scale, w, w_scale, out_dtype=torch.float32)
    assert got.dtype == torch.float32
    torch.testing.assert_close(got, wk.gate_residual(residual, y, gate))


def arguments(**changed: Any) -> dict[str, Any]:
    given = {
        "x": torch.ones(2, 3, 8, dtype=INT8),
        "x_scale": torch.ones(2, 3),
        "weight": torch.ones(4, 8, dtype=INT8),
        "weight_scale": torch.ones(4),
    }
    return given | changed


@pytest.mark.parametrize(
    ("changed", "error", "message"),
    [
        ({"x": torch.ones(2, 3, 8)}, TypeError, "x must be one of int8, float8_e4m3fn, got float32"),
        ({"weight": torch.ones(4, 8).to(FP8)}, TypeError, "weight must be int8 as x is, got float8_e4m3fn"),
        ({"weight": torch.ones(4, 7, dtype=INT8)}, ValueError, "weight must have shape (4, 8), got (4, 7)"),
        ({"weight": torch.ones(8, 4, dtype=INT8).t()}, ValueError, "weight must be contiguous"),
        ({"weight": torch.ones(1, 2, 16, 3, dtype=INT8)}, ValueError, "weight must have shape (1, 2, 16, 4)"),
        ({"x_scale": torch.ones(2, 4)}, ValueError, "x_scale must have shape (2, 3), got (2, 4)"),
        ({"x_scale": torch.ones(2, 3).double()}, TypeError, "x_scale must be one of float32, got float64"),
        ({"weight_scale": torch.ones(1, 4)}, ValueError, "weight_scale must be [N]"),
        ({"bias": torch.ones(5)}, ValueError, "bias must have shape (4), got (5,)"),
        ({"gate": torch.ones(2, 1, 4)}, ValueError, "gate must come with a residual"),
        ({"index": torch.zeros(2, 3, dtype=torch.int32)}, ValueError, "index must come with a gate"),
        ({"gelu": True, "residual": torch.ones(2, 3, 4)}, ValueError, "gelu must not come with a residual"),
        ({"out_dtype": torch.int32}, TypeError, "out_dtype must be one of float32"),
        (
            {"out_dtype": torch.bfloat16, "residual": torch.ones(2, 3, 4)},
            TypeError,
            "out_dtype must be one of float32, got torch.bfloat16",
        ),
        (
            {
                "x": torch.ones(1, 65540, dtype=INT8),
                "x_scale": torch.ones(1),
                "weight": torch.ones(4, 65540, dtype=INT8),
            },
            ValueError,
            "x must have K of at most 65536 for int8, got 65540",
        ),
    ],
)
def test_refuses(changed: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=re.escape(f"[linear_8bit] {message}")):
        wk.linear_8bit(**arguments(**changed))


def test_the_widest_int8_sum_does_not_overflow() -> None:
    x = torch.full((1, 65536), 127, dtype=INT8)
    for sign in (1, -1):
        got = wk.linear_8bit(x, torch.ones(1), sign * x, torch.ones(1), out_dtype=torch.float32)
        assert got.item() == sign * 127 * 127 * 65536
