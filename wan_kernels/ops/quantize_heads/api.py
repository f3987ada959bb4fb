"""The public function and its op."""

from torch import Tensor

from wan_kernels.common.checks import check_dim, check_tensor, check_tokens_per_scale
from wan_kernels.define_op import define_op
from wan_kernels.ops.quantize_heads import reference

NAME = "quantize_heads"
OP = define_op(
    "quantize_heads(Tensor x, SymInt tokens_per_scale=1, bool is_smooth=False) -> (Tensor, Tensor, Tensor)",
    reference,
    is_inference_only=True,
)


def quantize_heads(x: Tensor, *, tokens_per_scale: int = 1, is_smooth: bool = False) -> tuple[Tensor, Tensor, Tensor]:
    """int8 codes of x - mean, heads first: what 8-bit attention reads as q or k, from a q or k that is ready.

    x[b, l, n] ~ codes[b, n, l] * scales[b, n, l // tokens_per_scale] + mean[b, n]. With is_smooth, mean is that of x
    over all L tokens; otherwise it is 0. What `rms_norm_rope_8bit` does after its norm and rotation; what leaving the
    mean of k out does to a softmax and its log-sum-exp, it says.

    Shapes and types: x [B, L, N, H], float32/bfloat16/float16/float64, any strides. Returns codes [B, N, L, H] int8,
    contiguous, scales [B, N, ceil(L / tokens_per_scale)] and mean [B, N, H] float32 (float64 for float64). May be
    empty.
    Units and ranges: tokens_per_scale >= 1, the last block may be shorter; scales and codes as `quantize_rows` has them
    for rows of tokens_per_scale * H.
    Numerics: mean, difference, amax and products in float32, one rounding, to the code. The mean is summed in an order
    that the shape fixes. A NaN or an infinity makes the scale of its head's block not finite and the block's codes 0;
    with is_smooth all blocks of its head.
    Raises: TypeError for a dtype, ValueError for a shape or tokens_per_scale; RuntimeError when differentiated.
    Source: as quantize_rows; smoothing k as SageAttention, arXiv 2410.02367, section 4.2.
    """
    check_tensor(NAME, "x", x)
    check_dim(NAME, "x", x, 4, "[B, L, N, H]")
    check_tokens_per_scale(NAME, tokens_per_scale)
    return OP(x, tokens_per_scale, bool(is_smooth))
