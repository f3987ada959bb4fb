"""channel_rms_norm_silu in plain PyTorch: the specification.

Rounding points: everything in promote_types(x.dtype, float32), rounded once to x.dtype.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

from wan_kernels.common.cost import Cost, num_bytes


def forward(x: Tensor, weight: Tensor, apply_silu: bool) -> Tensor:
    compute = torch.promote_types(x.dtype, torch.float32)
    num_channels = x.shape[1]
    normalised = F.normalize(x.to(compute), dim=1, eps=1e-12) * num_channels**0.5
    y = normalised * weight.to(compute).view(num_channels, *[1] * (x.dim() - 2))
    return (F.silu(y) if apply_silu else y).to(x.dtype)


def cost(x: Tensor, weight: Tensor, apply_silu: bool) -> Cost:
    """Square and sum, scale, weight: 4 operations per element; SiLU: 4 more, its exponential counted as one."""
    return Cost((8 if apply_silu else 4) * x.numel(), num_bytes(x, x, weight))
