"""channel_rms_norm_silu in plain PyTorch: the specification.

Rounding points: everything in promote_types(x.dtype, float32), rounded once to x.dtype.
"""

from torch import Tensor

from wan_kernels.common.channel_norm import channel_rms_norm
from wan_kernels.common.cost import Cost, num_bytes


def forward(x: Tensor, weight: Tensor, apply_silu: bool) -> Tensor:
    return channel_rms_norm(x, weight, apply_silu)


def cost(x: Tensor, weight: Tensor, apply_silu: bool) -> Cost:
    """Square and sum, scale, weight: 4 operations per element; SiLU: 4 more, its exponential counted as one."""
    return Cost((8 if apply_silu else 4) * x.numel(), num_bytes(x, x, weight))
