"""The public function and its op."""

import torch
from torch import Tensor

from wan_kernels.common.checks import check_codes_dtype, check_gate_residual, check_layer_norm_modulate
from wan_kernels.define_op import define_op
from wan_kernels.ops.gate_residual_layer_norm_modulate_8bit import reference

NAME = "gate_residual_layer_norm_modulate_8bit"
OP = define_op(
    "gate_residual_layer_norm_modulate_8bit(Tensor x, Tensor y, Tensor? gate, Tensor? scale, Tensor? shift, "
    "Tensor? weight, Tensor? bias, Tensor? index, float eps, ScalarType dtype) -> (Tensor, Tensor, Tensor)",
    reference,
    is_inference_only=True,
)


def gate_residual_layer_norm_modulate_8bit(
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
    dtype: torch.dtype = torch.int8,
) -> tuple[Tensor, Tensor, Tensor]:
    """stream = x + y [* gate[row]], and layer_norm_modulate_8bit(stream, ...): the codes that the next GEMM reads.

    For a product in front that has no residual epilogue; where it is `linear_8bit`, its own epilogue makes the stream
    and y is never in memory.

    Shapes and types: x [B, L, D], the residual stream, normally float32; y [B, L, D]; gate, scale, shift [B, R, D],
    normally float32, gate alone optional, scale and shift both or neither; weight, bias [D], both or neither; each
    float32/bfloat16/float16/float64; index [B, L], int32/int64: the row of each token in all three, None where R == 1;
    dtype int8 or float8_e4m3fn. Returns the stream in x.dtype, codes in dtype, both new and contiguous [B, L, D], and
    scales [B, L] float32. B or L may be 0.
    Units and ranges: eps >= 0 is added to the variance (biased); index in [0, R), not checked; scales and codes as
    `quantize_rows` has them.
    Numerics: everything in float32; the stream rounded once to x.dtype and normalised as rounded; the result rounded
    once, to the code. A NaN or infinity stays in its element of the stream; its token's scale is NaN and codes are 0.
    Raises: TypeError for a dtype, ValueError for a shape, device, eps or half a pair; RuntimeError when differentiated.
    Source: as gate_residual, layer_norm_modulate and quantize_rows.
    """
    check_layer_norm_modulate(NAME, x, scale, shift, weight, bias, index, eps, gate)
    check_gate_residual(NAME, x, y, gate, scale, index)
    check_codes_dtype(NAME, "dtype", dtype)
    return OP(x, y, gate, scale, shift, weight, bias, index, float(eps), dtype)
