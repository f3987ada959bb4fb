"""rms_norm_rope_8bit in plain PyTorch: the specification.

Rounding points: everything in promote_types(x.dtype, float32), rounded once, to the code.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from wan_kernels.common.cost import Cost, num_bytes
from wan_kernels.common.quantize import dequantize_heads, quantize_heads
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
    tokens_per_scale: int,
    is_smooth: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    compute = torch.promote_types(x.dtype, torch.float32)
    wide = x.to(compute)
    normalised = wide * torch.rsqrt(wide.square().mean(-1, keepdim=True) + eps)
    scaled = (normalised * weight.to(compute)).unflatten(-1, (num_heads, -1))
    y_BNLH = rotate(scaled, freqs_t, freqs_y, freqs_x, grid).transpose(1, 2)
    return quantize_heads(y_BNLH, tokens_per_scale, is_smooth)


def dequantized(outputs: tuple[Tensor, Tensor, Tensor], args: Mapping[str, Any]) -> Tensor:
    """What the codes stand for, mean included: [B, N, L, H]."""
    return dequantize_heads(*outputs, args["tokens_per_scale"])


def cost(
    x: Tensor,
    weight: Tensor,
    freqs_t: Tensor,
    freqs_y: Tensor,
    freqs_x: Tensor,
    num_heads: int,
    grid: Grid,
    eps: float,
    tokens_per_scale: int,
    is_smooth: bool,
) -> Cost:
    """As rms_norm_rope, 4 operations per element to quantise, and 2 for the mean and its difference. x is read twice
    where the mean is taken off: no code can be made before all of it was seen."""
    num_scales = x.shape[0] * num_heads * -(-x.shape[1] // tokens_per_scale)
    num_means = x.shape[0] * x.shape[2]
    written = x.numel() + 4 * (num_scales + num_means)
    read = (1 + is_smooth) * num_bytes(x) + num_bytes(weight, freqs_t, freqs_y, freqs_x)
    return Cost((11 + 2 * is_smooth) * x.numel(), read + written)
