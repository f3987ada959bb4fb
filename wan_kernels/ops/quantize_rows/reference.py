"""quantize_rows in plain PyTorch: the specification.

Rounding points: x is read in promote_types(x.dtype, float32); see common/quantize.py.
"""

import torch
from torch import Tensor

from wan_kernels.common.cost import Cost, num_bytes
from wan_kernels.common.quantize import quantize


def forward(x: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    return quantize(x.to(torch.promote_types(x.dtype, torch.float32)), dtype)


def cost(x: Tensor, dtype: torch.dtype) -> Cost:
    """Size, maximum, product and rounding: 4 operations per element; a code each, a scale per row."""
    num_rows = x.numel() // max(x.shape[-1], 1)
    return Cost(4 * x.numel(), num_bytes(x) + x.numel() + 4 * num_rows)
