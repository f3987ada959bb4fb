"""rms_norm_rope in plain PyTorch: the specification.

Rounding points: normalised in promote_types(x.dtype, float32), rounded to x.dtype, then weight and rotation again in
promote_types(x.dtype, float32), rounded once to x.dtype.
"""

import torch
from torch import Tensor

from wan_kernels.common.cost import Cost, num_bytes
from wan_kernels.common.rope import Grid, rotate


def forward(
    x: Tensor,
    weight: Tensor,
    freqs_t: Tensor,
    freqs_y: Tensor,
    freqs_x: Tensor,
    num_heads: int,
    grid: Grid,
    eps: float,
) -> Tensor:
    compute = torch.promote_types(x.dtype, torch.float32)
    wide = x.to(compute)
    normalised = (wide * torch.rsqrt(wide.square().mean(-1, keepdim=True) + eps)).to(x.dtype)
    scaled = (normalised.to(compute) * weight.to(compute)).unflatten(-1, (num_heads, -1))
    return rotate(scaled, freqs_t, freqs_y, freqs_x, grid).to(x.dtype)


def cost(
    x: Tensor,
    weight: Tensor,
    freqs_t: Tensor,
    freqs_y: Tensor,
    freqs_x: Tensor,
    num_heads: int,
    grid: Grid,
    eps: float,
) -> Cost:
    """rms_norm's 4 operations per element, and 6 for each rotated pair."""
    return Cost(7 * x.numel(), num_bytes(x, x, weight, freqs_t, freqs_y, freqs_x))
