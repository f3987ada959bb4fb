"""The public function and its op."""

import torch
from torch import Tensor

from wan_kernels.common.checks import check_dim, check_positive, check_same_device, check_shape, check_tensor
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
    normalised, not rotated.

    Shapes and types: x [B, L, N*H], float32/bfloat16/float16/float64, H even; weight [N*H]; freqs_t, freqs_y, freqs_x
    [length, pairs, 2], float32 or float64, holding (cos, sin), pairs adding up to H/2, length at least that axis of the
    grid; grid (T, Y, X) with T*Y*X <= L. Returns a contiguous [B, L, N, H] in x.dtype. B or L may be 0.
    Units and ranges: eps >= 0 is added to the mean square.
    Numerics: normalised in float32 (float64 stays float64), rounded to x.dtype, then weight and rotation in float32,
    rounded once to x.dtype. A NaN makes its own token NaN, no other. freqs tables get no gradient.
    Raises: TypeError for a dtype, ValueError for a shape, device, grid or eps.
    Source: RoPE, arXiv 2104.09864; axes and norm as Wan2.1 at 9737cba, modules/model.py, rope_apply, WanRMSNorm.
    """
    check_tensor(NAME, "x", x)
    check_dim(NAME, "x", x, 3, "[B, L, N*H]")
    check_tensor(NAME, "weight", weight)
    check_shape(NAME, "weight", weight, x.shape[2:])
    if num_heads < 1 or x.shape[2] % (2 * num_heads):
        raise ValueError(f"[{NAME}] x's width must be num_heads * an even H, got {x.shape[2]} with {num_heads} heads")
    _check_freqs((freqs_t, freqs_y, freqs_x), grid, x.shape[2] // num_heads // 2)
    num_rotated = grid[0] * grid[1] * grid[2]
    if num_rotated > x.shape[1]:
        raise ValueError(f"[{NAME}] grid must hold at most L = {x.shape[1]} tokens, got {tuple(grid)} = {num_rotated}")
    check_same_device(NAME, x=x, weight=weight, freqs_t=freqs_t, freqs_y=freqs_y, freqs_x=freqs_x)
    check_positive(NAME, "eps", eps)
    return OP(x, weight, freqs_t, freqs_y, freqs_x, num_heads, list(grid), float(eps))


def _check_freqs(freqs: tuple[Tensor, Tensor, Tensor], grid: tuple[int, int, int], num_pairs: int) -> None:
    if len(grid) != 3 or min(grid) < 0:
        raise ValueError(f"[{NAME}] grid must be (T, Y, X), none negative, got {tuple(grid)}")
    for name, table, side in zip(("freqs_t", "freqs_y", "freqs_x"), freqs, grid, strict=True):
        check_tensor(NAME, name, table, (torch.float32, torch.float64))
        check_shape(NAME, name, table, (None, None, 2))
        if table.shape[0] < side:
            raise ValueError(f"[{NAME}] {name} must reach position {side - 1}, got {table.shape[0]} rows")
    found = sum(table.shape[1] for table in freqs)
    if found != num_pairs:
        raise ValueError(f"[{NAME}] the tables' pairs must add up to H/2 = {num_pairs}, got {found}")
