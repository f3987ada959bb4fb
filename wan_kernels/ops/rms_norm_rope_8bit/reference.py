"""rms_norm_rope_8bit in plain PyTorch: the specification.

Rounding points: everything in promote_types(x.dtype, float32), rounded once, to the code.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from wan_kernels.common.cost import Cost, num_bytes
from wan_kernels.common.quantize import dequantize, quantize
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
    if is_smooth:
        mean_BNH = y_BNLH.sum(2) / max(x.shape[1], 1)
    else:
        mean_BNH = y_BNLH.new_zeros(x.shape[0], num_heads, x.shape[2] // num_heads)
    codes, scales = quantize_blocks(y_BNLH - mean_BNH.unsqueeze(2), tokens_per_scale)
    return codes, scales, mean_BNH.contiguous()


def quantize_blocks(y_BNLH: Tensor, tokens_per_scale: int) -> tuple[Tensor, Tensor]:
    """int8 codes [B, N, L, H], and a scale for each block of tokens, [B, N, ceil(L / tokens_per_scale)]."""
    length, width = y_BNLH.shape[2:]
    num_blocks = -(-length // tokens_per_scale)
    whole = F.pad(y_BNLH, (0, 0, 0, num_blocks * tokens_per_scale - length)).contiguous()
    blocks = whole.unflatten(2, (num_blocks, tokens_per_scale)).flatten(3)
    codes, scales = quantize(blocks, torch.int8)
    return codes.unflatten(3, (tokens_per_scale, width)).flatten(2, 3)[:, :, :length].contiguous(), scales


def dequantized(outputs: tuple[Tensor, Tensor, Tensor], args: Mapping[str, Any]) -> Tensor:
    """What the codes stand for, mean included: [B, N, L, H]."""
    codes, scales, mean_BNH = outputs
    scale_of_token = scales.repeat_interleave(args["tokens_per_scale"], dim=2)[:, :, : codes.shape[2]]
    return dequantize(codes, scale_of_token) + mean_BNH.unsqueeze(2)


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
    """As rms_norm_rope, 4 operations per element to quantise, and 2 for the mean and its difference."""
    num_scales = x.shape[0] * num_heads * -(-x.shape[1] // tokens_per_scale)
    num_means = x.shape[0] * x.shape[2]
    written = x.numel() + 4 * (num_scales + num_means)
    return Cost((11 + 2 * is_smooth) * x.numel(), num_bytes(x, weight, freqs_t, freqs_y, freqs_x) + written)
