"""rms_norm in plain PyTorch: the specification.

Rounding points: normalised in promote_types(x.dtype, float32), rounded to x.dtype, multiplied by the weight in
promote_types(x.dtype, weight.dtype), rounded to x.dtype.
"""

import torch
from torch import Tensor

from wan_kernels.common.cost import Cost, num_bytes


def forward(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    wide = x.to(torch.promote_types(x.dtype, torch.float32))
    normalised = wide * torch.rsqrt(wide.square().mean(-1, keepdim=True) + eps)
    return (normalised.to(x.dtype) * weight).to(x.dtype).contiguous()


def cost(x: Tensor, weight: Tensor, eps: float) -> Cost:
    """Square and sum, scale, weight: 4 operations per element."""
    return Cost(4 * x.numel(), num_bytes(x, x, weight))
