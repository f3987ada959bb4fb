"""The public function and its op."""

import torch
from torch import Tensor

from wan_kernels.common.checks import check_codes_dtype, check_layer_norm_modulate
from wan_kernels.define_op import define_op
from wan_kernels.ops.layer_norm_modulate_8bit import reference

NAME = "layer_norm_modulate_8bit"
OP = define_op(
    "layer_norm_modulate_8bit(Tensor x, Tensor? scale, Tensor? shift, Tensor? weight, Tensor? bias, Tensor? index, "
    "float eps, ScalarType dtype) -> (Tensor, Tensor)",
    reference,
    is_inference_only=True,
)


def layer_norm_modulate_8bit(
    x: Tensor,
    scale: Tensor | None = None,
    shift: Tensor | None = None,
    *,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    index: Tensor | None = None,
    eps: float = 1e-6,
    dtype: torch.dtype = torch.int8,
) -> tuple[Tensor, Tensor]:
    """quantize_rows(layer_norm_modulate(x, ...)) in one pass: one quantisation feeds one joined GEMM.

    Shapes and types: x [B, L, D], float32/bfloat16/float16/float64; scale, shift [B, R, D], both or neither; weight,
    bias [D], both or neither; index [B, L], int32/int64, the modulation row of each token, None where R == 1; dtype
    int8 or float8_e4m3fn. Returns codes [B, L, D] in dtype, contiguous, and scales [B, L] float32. B or L may be 0.
    Units and ranges: eps >= 0 is added to the variance (biased); index in [0, R), not checked; scales and codes as
    `quantize_rows` has them.
    Numerics: everything in float32 and one rounding, to the code: the normalised row is never rounded to x.dtype.
    A NaN or infinity makes its own token's scale NaN and codes 0.
    Raises: TypeError for a dtype, ValueError for a shape, device, eps or half a pair; RuntimeError when differentiated.
    Source: as layer_norm_modulate and quantize_rows; the fusion as arXiv 2211.10438, figure 6, puts it.
    """
    check_layer_norm_modulate(NAME, x, scale, shift, weight, bias, index, eps)
    check_codes_dtype(NAME, "dtype", dtype)
    return OP(x, scale, shift, weight, bias, index, float(eps), dtype)
