"""layer_norm_modulate in plain PyTorch: the specification.

Rounding points: everything in promote_types(x.dtype, float32), rounded once to out_dtype.
"""

import torch
from torch import Tensor

from wan_kernels.common.cost import Cost, num_bytes
from wan_kernels.common.modulation import normalise_and_modulate


def forward(
    x: Tensor,
    scale: Tensor | None,
    shift: Tensor | None,
    weight: Tensor | None,
    bias: Tensor | None,
    index: Tensor | None,
    eps: float,
    out_dtype: torch.dtype | None,
) -> Tensor:
    y = normalise_and_modulate(x, scale, shift, weight, bias, index, eps)
    return y.to(out_dtype or x.dtype).contiguous()


def cost(
    x: Tensor,
    scale: Tensor | None,
    shift: Tensor | None,
    weight: Tensor | None,
    bias: Tensor | None,
    index: Tensor | None,
    eps: float,
    out_dtype: torch.dtype | None,
) -> Cost:
    """Mean, variance and normalise: 6 operations per element; each multiply-add after that: 2."""
    per_element = 6 + 2 * (weight is not None) + 2 * (scale is not None)
    out_bytes = x.numel() * (out_dtype or x.dtype).itemsize
    return Cost(per_element * x.numel(), num_bytes(x, scale, shift, weight, bias, index) + out_bytes)
