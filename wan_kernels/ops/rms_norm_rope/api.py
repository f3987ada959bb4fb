"""The public function and its op."""

from torch import Tensor

from wan_kernels.common.checks import check_rms_norm_rope
from wan_kernels.define_op import define_op
from wan_kernels.ops.rms_norm_rope import reference

NAME = "rms_norm_rope"
OP = define_op(
    "rms_norm_rope(Tensor x, Tensor weight, Tensor freqs_t, Tensor freqs_y, Tensor freqs_x, SymInt num_heads, "
    "SymInt[] grid, float eps=1e-6) -> Tensor",
    reference,
    no_gradient=("freqs_t", "freqs_y", "freqs_x"),
)


def rms_norm_rope(
    x: Tensor,
    weight: Tensor,
    freqs_t: Tensor,
    freqs_y: Tensor,
    freqs_x: Tensor,
    *,
    num_heads: int,
    grid: tuple[int, int, int],
    eps: float = 1e-6,
) -> Tensor:
    """rms_norm over the full width, then the 3D rotary embedding of each head: what attention reads as q or k.

    Token l < T*Y*X sits at (t, y, x), x fastest. Each adjacent pair (2i, 2i+1) of a head is turned by an angle: the
    first pairs by freqs_t[t], the next by freqs_y[y], the rest by freqs_x[x]. Tokens from T*Y*X on are padding:
    normalised, not rotated. A grid with an extent of 0, (0, 0, 0) too, turns none.

    Shapes and types: x [B, L, N*H], float32/bfloat16/float16/float64, H even; weight [N*H]; freqs_t, freqs_y, freqs_x
    [length, pairs, 2], float32 or float64, holding (cos, sin), pairs adding up to H/2, length at least that axis of the
    grid; grid (T, Y, X) with T*Y*X <= L. Returns a contiguous [B, L, N, H] in x.dtype. B or L may be 0.
    Units and ranges: eps >= 0 is added to the mean square.
    Numerics: normalised in float32 (float64 stays float64), rounded to x.dtype, then weight and rotation in float32,
    rounded once to x.dtype. A NaN makes its own token NaN, no other. freqs tables get no gradient.
    Raises: TypeError for a dtype, ValueError for a shape, device, grid or eps.
    Source: RoPE, arXiv 2104.09864; axes and norm as Wan2.1 at 9737cba, modules/model.py, rope_apply, WanRMSNorm.
    """
    check_rms_norm_rope(NAME, x, weight, (freqs_t, freqs_y, freqs_x), num_heads, grid, eps)
    return OP(x, weight, freqs_t, freqs_y, freqs_x, num_heads, list(grid), float(eps))
