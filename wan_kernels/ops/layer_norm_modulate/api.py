"""The public function and its op."""

import torch
from torch import Tensor

from wan_kernels.common.checks import FLOATING, check_layer_norm_modulate, short
from wan_kernels.define_op import define_op
from wan_kernels.ops.layer_norm_modulate import reference

NAME = "layer_norm_modulate"
OP = define_op(
    "layer_norm_modulate(Tensor x, Tensor? scale=None, Tensor? shift=None, Tensor? weight=None, Tensor? bias=None, "
    "Tensor? index=None, float eps=1e-6, ScalarType? out_dtype=None) -> Tensor",
    reference,
)


def layer_norm_modulate(
    x: Tensor,
    scale: Tensor | None = None,
    shift: Tensor | None = None,
    *,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    index: Tensor | None = None,
    eps: float = 1e-6,
    out_dtype: torch.dtype | None = None,
) -> Tensor:
    """(LN(x) [* weight + bias]) * (1 + scale[row]) + shift[row], with LN(x) = (x - mean) / sqrt(var + eps).

    Shapes and types: x [B, L, D], float32/bfloat16/float16/float64; scale, shift [B, R, D], both or neither, normally
    float32; weight, bias [D], both or neither; index [B, L], int32/int64: the modulation row of each token, None where
    R == 1. Returns a contiguous [B, L, D] in out_dtype, by default x's. B or L may be 0.
    Units and ranges: eps >= 0 is added to the variance (biased); index in [0, R), not checked.
    Numerics: everything in float32 (float64 stays float64), rounded once to out_dtype. A NaN or infinity makes its own
    token NaN, no other.
    Raises: TypeError for a dtype, ValueError for a shape, device, eps or half a pair.
    Source: adaLN, arXiv 2212.09748, section 3.2; float32 as Wan2.1 at 9737cba, modules/model.py, WanAttentionBlock.
    """
    check_layer_norm_modulate(NAME, x, scale, shift, weight, bias, index, eps)
    if out_dtype is not None and out_dtype not in FLOATING:
        raise TypeError(f"[{NAME}] out_dtype must be one of {', '.join(map(short, FLOATING))}, got {out_dtype}")
    return OP(x, scale, shift, weight, bias, index, float(eps), out_dtype)
