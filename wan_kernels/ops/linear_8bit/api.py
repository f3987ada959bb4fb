"""The public function and its op."""

import torch
from torch import Tensor

from wan_kernels.common.checks import (
    CODES,
    FLOATING,
    check_dim,
    check_modulation,
    check_same_device,
    check_shape,
    check_tensor,
    short,
)
from wan_kernels.define_op import define_op
from wan_kernels.ops.linear_8bit import reference
from wan_kernels.ops.linear_8bit.packing import is_packed, pack, packed_shape

NAME = "linear_8bit"
OP = define_op(
    "linear_8bit(Tensor x, Tensor x_scale, Tensor weight, Tensor weight_scale, ScalarType out_dtype, "
    "Tensor? bias=None, Tensor? residual=None, Tensor? gate=None, Tensor? index=None, bool gelu=False, "
    "bool fast_accum=False) -> (Tensor, Tensor)",
    reference,
    is_inference_only=True,
)


def linear_8bit(
    x: Tensor,
    x_scale: Tensor,
    weight: Tensor,
    weight_scale: Tensor,
    bias: Tensor | None = None,
    *,
    gelu: bool = False,
    residual: Tensor | None = None,
    gate: Tensor | None = None,
    index: Tensor | None = None,
    out_dtype: torch.dtype | None = None,
    fast_accum: bool = False,
) -> Tensor | tuple[Tensor, Tensor]:
    """y = (x weight^T) * x_scale * weight_scale + bias; gelu(y), or residual + y [* gate[row]]; then quantised or not.

    Shapes and types: x [..., K] and weight [N, K], both int8 or both float8_e4m3fn, weight contiguous, as
    `quantize_rows` of a linear layer's weight leaves it, or for CPUs packed by `pack_linear_8bit`; x_scale [...] and
    weight_scale [N] float32; bias [N]; residual [..., N], with which the result has its dtype; gate [B, R, N] with x
    [B, L, K] and a residual; index [B, L], int32/int64: the gate row of each token, None where R == 1. out_dtype: that
    of the result, by default the residual's, else bfloat16. An 8-bit out_dtype quantises each row of the result as
    `quantize_rows` does and returns (codes [..., N], scales [...] float32); otherwise one contiguous [..., N].
    Units and ranges: index in [0, R), not checked. K is at most 65,536 for int8: sums stay below 2^31.
    Numerics: int8 products are summed exactly in int32; float8 products in float32, except with fast_accum, which
    lets a GPU keep the sum in the about 14 bits of its float8 accumulators. Everything after in float32, GELU in its
    tanh form, one rounding to out_dtype. A scale that is not finite makes its row or column so; a scale of 0 leaves
    bias and residual.
    Raises: TypeError for a dtype, ValueError for a shape, a device, or parts that do not go together; RuntimeError
    when differentiated.
    Source: per-token by per-channel scales as arXiv 2211.10438, section 3; the epilogues as Wan2.1 at 9737cba,
    modules/model.py, WanAttentionBlock, has them in separate passes.
    """
    for name, value in (("x", x), ("weight", weight)):
        check_tensor(NAME, name, value, CODES)
    if weight.dtype != x.dtype:
        raise TypeError(f"[{NAME}] weight must be {short(x.dtype)} as x is, got {short(weight.dtype)}")
    if x.dim() == 0:
        raise ValueError(f"[{NAME}] x must be [..., K], got a scalar")
    check_tensor(NAME, "weight_scale", weight_scale, (torch.float32,))
    check_dim(NAME, "weight_scale", weight_scale, 1, "[N]")
    num_columns, width = weight_scale.shape[0], x.shape[-1]
    check_shape(NAME, "weight", weight, packed_shape(num_columns, width) if is_packed(weight) else (num_columns, width))
    if is_packed(weight) and weight.dtype is not torch.int8:
        raise TypeError(f"[{NAME}] weight must be int8 where it is packed, got {short(weight.dtype)}")
    if not weight.is_contiguous():
        raise ValueError(f"[{NAME}] weight must be contiguous, got strides {weight.stride()}")
    if x.dtype is torch.int8 and width > reference.MAX_INT8_WIDTH:
        raise ValueError(f"[{NAME}] x must have K of at most {reference.MAX_INT8_WIDTH} for int8, got {width}")
    check_tensor(NAME, "x_scale", x_scale, (torch.float32,))
    check_shape(NAME, "x_scale", x_scale, x.shape[:-1])
    out_shape = (*x.shape[:-1], num_columns)
    check_epilogue(bias, gelu, residual, gate, index, out_shape)
    out_dtype = out_dtype or (torch.bfloat16 if residual is None else residual.dtype)
    check_out_dtype(out_dtype, residual)
    tensors = {"x_scale": x_scale, "weight": weight, "weight_scale": weight_scale, "bias": bias}
    check_same_device(NAME, x=x, **tensors, residual=residual, gate=gate, index=index)
    out, out_scale = OP(
        x, x_scale, weight, weight_scale, out_dtype, bias, residual, gate, index, bool(gelu), bool(fast_accum)
    )
    return (out, out_scale) if out_dtype in CODES else out


def pack_linear_8bit(weight: Tensor) -> Tensor:
    """The weight of `linear_8bit` in the layout that CPU kernels multiply fastest; GPU kernels read [N, K].

    Shapes and types: weight [N, K] int8. Returns int8 [ceil(N / 16), ceil(K / 4), 16, 4], contiguous, where
    packed[n // 16, k // 4, n % 16, k % 4] = weight[n, k] and what lies beyond N or K is 0.
    Raises: TypeError for a dtype, ValueError for a shape.
    """
    check_tensor("pack_linear_8bit", "weight", weight, (torch.int8,))
    check_dim("pack_linear_8bit", "weight", weight, 2, "[N, K]")
    return pack(weight)


def check_epilogue(
    bias: Tensor | None,
    gelu: bool,
    residual: Tensor | None,
    gate: Tensor | None,
    index: Tensor | None,
    out_shape: tuple[int, ...],
) -> None:
    """Bias, activation, residual and gate against the result's shape and each other."""
    if bias is not None:
        check_tensor(NAME, "bias", bias)
        check_shape(NAME, "bias", bias, out_shape[-1:])
    if residual is not None:
        check_tensor(NAME, "residual", residual)
        check_shape(NAME, "residual", residual, out_shape)
        if gelu:
            raise ValueError(f"[{NAME}] gelu must not come with a residual, got both")
    if gate is not None:
        if residual is None:
            raise ValueError(f"[{NAME}] gate must come with a residual, got it alone")
        check_dim(NAME, "residual", residual, 3, "[B, L, N] where there is a gate")
        check_modulation(NAME, "gate", gate, residual, index)
    elif index is not None:
        raise ValueError(f"[{NAME}] index must come with a gate, got it alone")


def check_out_dtype(out_dtype: torch.dtype, residual: Tensor | None) -> None:
    allowed = (*FLOATING, *CODES) if residual is None else (residual.dtype,)
    if out_dtype not in allowed:
        raise TypeError(f"[{NAME}] out_dtype must be one of {', '.join(map(short, allowed))}, got {out_dtype}")
