"""The public function and its op."""

import torch
from torch import Tensor

from wan_kernels.common.checks import check_codes_dtype, check_tensor
from wan_kernels.define_op import define_op
from wan_kernels.ops.quantize_rows import reference

NAME = "quantize_rows"
OP = define_op("quantize_rows(Tensor x, ScalarType dtype) -> (Tensor, Tensor)", reference, is_inference_only=True)


def quantize_rows(x: Tensor, dtype: torch.dtype = torch.int8) -> tuple[Tensor, Tensor]:
    """Codes q and scales with x ~ q * scale[..., None]: symmetric, one scale for each row, saturating.

    Shapes and types: x [..., D], float32/bfloat16/float16/float64, any strides; dtype int8 or float8_e4m3fn. Returns q
    [..., D] in dtype, contiguous, and scale [...] float32 (float64 for float64). May be empty.
    Units and ranges: scale = amax / 127 (int8) or amax / 448 (float8_e4m3fn), never below 2^-126; int8 codes lie in
    [-127, 127]: -128 is not used.
    Numerics: amax and products in float32, one rounding to the nearest code, ties to even. A row of zeros has codes 0.
    A row that holds a NaN or an infinity has codes 0 and that as its scale, so that it dequantises to NaN.
    Raises: TypeError for a dtype, ValueError for a scalar x; RuntimeError when differentiated.
    Source: per-token quantisation as in arXiv 2211.10438, section 3; e4m3 as arXiv 2209.05433.
    """
    check_tensor(NAME, "x", x)
    check_codes_dtype(NAME, "dtype", dtype)
    if x.dim() == 0:
        raise ValueError(f"[{NAME}] x must be [..., D], got a scalar")
    return OP(x, dtype)
