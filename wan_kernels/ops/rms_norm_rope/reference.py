"""rms_norm_rope in plain PyTorch: the specification.

Rounding points: normalised in promote_types(x.dtype, float32), rounded to x.dtype, then weight and rotation again in
promote_types(x.dtype, float32), rounded once to x.dtype.
"""

import torch
from torch import Tensor

from wan_kernels.common.cost import Cost, num_bytes


def rotations(freqs_t: Tensor, freqs_y: Tensor, freqs_x: Tensor, grid: list[int] | tuple[int, int, int]) -> Tensor:
    """(cos, sin) of every pair at every grid position: [T*Y*X, H/2, 2]."""
    num_t, num_y, num_x = grid
    axes = (
        freqs_t[:num_t, None, None].expand(num_t, num_y, num_x, -1, -1),
        freqs_y[None, :num_y, None].expand(num_t, num_y, num_x, -1, -1),
        freqs_x[None, None, :num_x].expand(num_t, num_y, num_x, -1, -1),
    )
    return torch.cat(axes, dim=3).flatten(0, 2)


def forward(
    x: Tensor,
    weight: Tensor,
    freqs_t: Tensor,
    freqs_y: Tensor,
    freqs_x: Tensor,
    num_heads: int,
    grid: list[int] | tuple[int, int, int],
    eps: float,
) -> Tensor:
    compute = torch.promote_types(x.dtype, torch.float32)
    wide = x.to(compute)
    normalised = (wide * torch.rsqrt(wide.square().mean(-1, keepdim=True) + eps)).to(x.dtype)
    scaled = (normalised.to(compute) * weight.to(compute)).unflatten(-1, (num_heads, -1))

    turns = torch.view_as_complex(rotations(freqs_t, freqs_y, freqs_x, grid).to(compute)).unsqueeze(1)
    num_rotated = turns.shape[0]
    pairs = torch.view_as_complex(scaled[:, :num_rotated].unflatten(-1, (-1, 2)))
    rotated = torch.view_as_real(pairs * turns).flatten(-2)
    if num_rotated < x.shape[1]:
        rotated = torch.cat((rotated, scaled[:, num_rotated:]), dim=1)
    return rotated.to(x.dtype)


def cost(
    x: Tensor,
    weight: Tensor,
    freqs_t: Tensor,
    freqs_y: Tensor,
    freqs_x: Tensor,
    num_heads: int,
    grid: list[int] | tuple[int, int, int],
    eps: float,
) -> Cost:
    """rms_norm's 4 operations per element, and 6 for each rotated pair."""
    return Cost(7 * x.numel(), num_bytes(x, x, weight, freqs_t, freqs_y, freqs_x))
