"""quantize_heads in plain PyTorch: the specification.

Rounding points: x is read in promote_types(x.dtype, float32) and rounded once, to the code; see common/quantize.py.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from wan_kernels.common.cost import Cost, num_bytes
from wan_kernels.common.quantize import dequantize_heads, quantize_heads


def forward(x: Tensor, tokens_per_scale: int, is_smooth: bool) -> tuple[Tensor, Tensor, Tensor]:
    # Contiguous, so that the mean's order is the shape's, not the strides'.
    y_BNLH = x.to(torch.promote_types(x.dtype, torch.float32)).transpose(1, 2).contiguous()
    return quantize_heads(y_BNLH, tokens_per_scale, is_smooth)


def dequantized(outputs: tuple[Tensor, Tensor, Tensor], args: Mapping[str, Any]) -> Tensor:
    """What the codes stand for, mean included: [B, N, L, H]."""
    return dequantize_heads(*outputs, args["tokens_per_scale"])


def cost(x: Tensor, tokens_per_scale: int, is_smooth: bool) -> Cost:
    """As quantize_rows, and 2 operations per element for the mean and its difference. x is read twice where its mean is
    taken off: no code can be made before all of it was seen."""
    num_samples, length, num_heads, head_width = x.shape
    num_scales = num_samples * num_heads * -(-length // tokens_per_scale)
    written = x.numel() + 4 * (num_scales + num_samples * num_heads * head_width)
    return Cost((4 + 2 * is_smooth) * x.numel(), (1 + is_smooth) * num_bytes(x) + written)
