"""RMS norm over channels and SiLU in plain PyTorch: what two rooms' references are made of."""

import torch
from torch import Tensor
from torch.nn import functional as F


def channel_rms_norm(x: Tensor, weight: Tensor, apply_silu: bool) -> Tensor:
    """x / norm * sqrt(C) * weight along dim 1, then SiLU; in promote_types(x.dtype, float32), rounded to x.dtype."""
    compute = torch.promote_types(x.dtype, torch.float32)
    num_channels = x.shape[1]
    normalised = F.normalize(x.to(compute), dim=1, eps=1e-12) * num_channels**0.5
    y = normalised * weight.to(compute).view(num_channels, *[1] * (x.dim() - 2))
    return (F.silu(y) if apply_silu else y).to(x.dtype)
