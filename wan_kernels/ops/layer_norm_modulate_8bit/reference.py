"""layer_norm_modulate_8bit in plain PyTorch: the specification.

Rounding points: everything in promote_types(x.dtype, float32), rounded once, to the code.
"""

import torch
from torch import Tensor

from wan_kernels.common.cost import Cost, num_bytes
from wan_kernels.common.modulation import normalise_and_modulate
from wan_kernels.common.quantize import quantize


def forward(
    x: Tensor,
    scale: Tensor | None,
    shift: Tensor | None,
    weight: Tensor | None,
    bias: Tensor | None,
    index: Tensor | None,
    eps: float,
    dtype: torch.dtype,
) -> tuple[Tensor, Tensor]:
    return quantize(normalise_and_modulate(x, scale, shift, weight, bias, index, eps), dtype)


def cost(
    x: Tensor,
    scale: Tensor | None,
    shift: Tensor | None,
    weight: Tensor | None,
    bias: Tensor | None,
    index: Tensor | None,
    eps: float,
    dtype: torch.dtype,
) -> Cost:
    """As layer_norm_modulate, and 4 operations per element to quantise."""
    per_element = 10 + 2 * (weight is not None) + 2 * (scale is not None)
    num_rows = x.shape[0] * x.shape[1]
    return Cost(per_element * x.numel(), num_bytes(x, scale, shift, weight, bias, index) + x.numel() + 4 * num_rows)
