"""The public function and its op."""

from torch import Tensor

from wan_kernels.common.checks import check_rms_norm_rope, check_tokens_per_scale
from wan_kernels.define_op import define_op
from wan_kernels.ops.rms_norm_rope_8bit import reference

NAME = "rms_norm_rope_8bit"
OP = define_op(
    "rms_norm_rope_8bit(Tensor x, Tensor weight, Tensor freqs_t, Tensor freqs_y, Tensor freqs_x, SymInt num_heads, "
    "SymInt[] grid, float eps=1e-6, SymInt tokens_per_scale=1, bool is_smooth=False) -> (Tensor, Tensor, Tensor)",
    reference,
    is_inference_only=True,
)


def rms_norm_rope_8bit(
    x: Tensor,
    weight: Tensor,
    freqs_t: Tensor,
    freqs_y: Tensor,
    freqs_x: Tensor,
    *,
    num_heads: int,
    grid: tuple[int, int, int],
    eps: float = 1e-6,
    tokens_per_scale: int = 1,
    is_smooth: bool = False,
) -> tuple[Tensor, Tensor, Tensor]:
    """int8 codes of y - mean with y = rms_norm_rope(x, ...), heads first: what 8-bit attention reads as q or k.

    y[b, l, n] ~ codes[b, n, l] * scales[b, n, l // tokens_per_scale] + mean[b, n]. With is_smooth, mean is that of y
    over all L tokens, padding too; otherwise it is 0. It is meant for k, where one channel's offset, common to all
    tokens, would take most of the codes. Leaving k's mean out adds the same number to all logits of a query: the
    softmax stays as it is, its log-sum-exp does not and is scale * q . mean greater with the mean than without.

    Where grid is empty, as cross-attention wants it, no token turns: y is the norm.

    Shapes and types: x, weight, freqs_t, freqs_y, freqs_x, grid as `rms_norm_rope` takes them. Returns codes
    [B, N, L, H] int8, contiguous, scales [B, N, ceil(L / tokens_per_scale)] float32 and mean [B, N, H] float32 (both
    float64 for float64). B or L may be 0.
    Units and ranges: eps >= 0 is added to the mean square; tokens_per_scale >= 1, the last block may be shorter; scales
    and codes as `quantize_rows` has them for rows of tokens_per_scale * H.
    Numerics: everything in float32 and one rounding, to the code: neither the normalised nor the rotated row is ever
    rounded to x.dtype. The mean is summed in an order that the shape fixes. A NaN makes its token NaN in all heads,
    and so the scale of its block NaN and the block's codes 0; an infinity does that in its own head and is 0 in the
    others. With is_smooth it reaches the head's mean and through it the whole head.
    Raises: TypeError for a dtype, ValueError for a shape, device, grid, eps or tokens_per_scale; RuntimeError when
    differentiated.
    Source: as rms_norm_rope and quantize_rows; smoothing k as SageAttention, arXiv 2410.02367, section 4.2.
    """
    check_rms_norm_rope(NAME, x, weight, (freqs_t, freqs_y, freqs_x), num_heads, grid, eps)
    check_tokens_per_scale(NAME, tokens_per_scale)
    freqs = freqs_t, freqs_y, freqs_x
    return OP(x, weight, *freqs, num_heads, list(grid), float(eps), tokens_per_scale, bool(is_smooth))
