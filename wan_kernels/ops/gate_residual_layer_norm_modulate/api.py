"""The public function and its op."""

import torch
from torch import Tensor

from wan_kernels.common.checks import FLOATING, check_gate_residual, check_layer_norm_modulate, short
from wan_kernels.define_op import define_op
from wan_kernels.ops.gate_residual_layer_norm_modulate import reference

NAME = "gate_residual_layer_norm_modulate"
OP = define_op(
    "gate_residual_layer_norm_modulate(Tensor x, Tensor y, Tensor? gate=None, Tensor? scale=None, Tensor? shift=None, "
    "Tensor? weight=None, Tensor? bias=None, Tensor? index=None, float eps=1e-6, ScalarType? out_dtype=None) "
    "-> (Tensor, Tensor)",
    reference,
)


def gate_residual_layer_norm_modulate(
    x: Tensor,
    y: Tensor,
    gate: Tensor | None = None,
    scale: Tensor | None = None,
    shift: Tensor | None = None,
    *,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    index: Tensor | None = None,
    eps: float = 1e-6,
    out_dtype: torch.dtype | None = None,
) -> tuple[Tensor, Tensor]:
    """stream = x + y [* gate[row]], and layer_norm_modulate(stream, ...): a layer's end and the next one's beginning.

    Shapes and types: x [B, L, D], the residual stream, normally float32; y [B, L, D]; gate, scale, shift [B, R, D],
    normally float32, gate alone optional, scale and shift both or neither; weight, bias [D], both or neither; each
    float32/bfloat16/float16/float64; index [B, L], int32/int64: the row of each token in all three, None where R == 1.
    Returns the stream in x.dtype and what is normalised in out_dtype, by default x's, both new and contiguous
    [B, L, D]. B or L may be 0.
    Units and ranges: eps >= 0 is added to the variance (biased); index in [0, R), not checked.
    Numerics: as gate_residual and then layer_norm_modulate: everything in float32 (float64 stays float64), the stream
    rounded once to x.dtype and normalised as rounded. A NaN or infinity stays in its element of the stream and makes
    its own token's norm NaN.
    Raises: TypeError for a dtype, ValueError for a shape, device, eps or half a pair.
    Source: as gate_residual and layer_norm_modulate.
    """
    check_layer_norm_modulate(NAME, x, scale, shift, weight, bias, index, eps, gate)
    check_gate_residual(NAME, x, y, gate, scale, index)
    if out_dtype is not None and out_dtype not in FLOATING:
        raise TypeError(f"[{NAME}] out_dtype must be one of {', '.join(map(short, FLOATING))}, got {out_dtype}")
    return OP(x, y, gate, scale, shift, weight, bias, index, float(eps), out_dtype)
