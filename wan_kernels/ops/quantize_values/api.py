"""The public function and its op."""

import torch
from torch import Tensor

from wan_kernels.common.checks import check_codes_dtype, check_dim, check_tensor
from wan_kernels.common.quantize import VALUES_TILE
from wan_kernels.define_op import define_op
from wan_kernels.ops.quantize_values import reference

NAME = "quantize_values"
OP = define_op(
    "quantize_values(Tensor v, ScalarType dtype, SymInt? tokens_per_scale=None, bool is_smooth=False, "
    "bool is_permuted=False) -> (Tensor, Tensor, Tensor)",
    reference,
    is_inference_only=True,
)


def quantize_values(
    v: Tensor,
    *,
    dtype: torch.dtype,
    tokens_per_scale: int | None = None,
    is_smooth: bool = False,
    is_permuted: bool = False,
) -> tuple[Tensor, Tensor, Tensor]:
    """Codes of v - mean by channel, tokens last: what 8-bit attention reads as v.

    v[b, l, n] ~ codes[b, n, :, l] * scales[b, n, l // tokens_per_scale] + mean[b, n]: a scale for each channel and
    block of tokens, or for each channel where tokens_per_scale is None. With is_smooth, mean is that of v over its L
    tokens; otherwise it is 0. Rows of a softmax sum to 1, so that attention to v - mean with mean added is attention to
    v. With is_permuted, tokens are ordered inside each 16: position 16 g + p holds token
    16 g + [0, 1, 8, 9, 2, 3, 10, 11, 4, 5, 12, 13, 6, 7, 14, 15][p], so that on Hopper the registers that hold the
    scores of one product are those of the operand of the next.

    Shapes and types: v [B, L, N, H], float32/bfloat16/float16/float64, any strides; dtype int8 or float8_e4m3fn.
    Returns codes [B, N, H, P] in dtype, contiguous, P = L rounded up to a multiple of 128 and codes 0 beyond L; scales
    [B, N, num_blocks, H], contiguous, and mean [B, N, H] float32 (float64 for float64). May be empty.
    Units and ranges: tokens_per_scale is a multiple of 128, so that no tile of attention's meets two scales of a
    channel; num_blocks = ceil(L / tokens_per_scale), for None 1, and 0 for no tokens; the last block may be shorter.
    scale = amax over the block's tokens / 127 (int8) or / 448 (float8_e4m3fn), never below 2^-126.
    Numerics: mean, difference, amax and products in float32, one rounding to the nearest code, ties to even. The mean
    is summed in an order that the shape fixes. Where a channel's block holds a NaN or an infinity, codes are 0 and the
    scale is not finite; with is_smooth that is all blocks of the channel. Other channels are as they would be without.
    Raises: TypeError for a dtype, ValueError for a shape or tokens_per_scale; RuntimeError when differentiated.
    Source: a scale per channel, the mean of v and the order of tokens as SageAttention2, arXiv 2411.10958, and its
    code, thu-ml/SageAttention, sageattention/quant.py; e4m3 as arXiv 2209.05433.
    """
    check_tensor(NAME, "v", v)
    check_dim(NAME, "v", v, 4, "[B, L, N, H]")
    check_codes_dtype(NAME, "dtype", dtype)
    if tokens_per_scale is not None and (tokens_per_scale < 1 or tokens_per_scale % VALUES_TILE):
        rule = f"None or a positive multiple of {VALUES_TILE}"
        raise ValueError(f"[{NAME}] tokens_per_scale must be {rule}, got {tokens_per_scale}")
    return OP(v, dtype, tokens_per_scale, bool(is_smooth), bool(is_permuted))
