"""layer_norm_modulate_8bit in plain PyTorch: the specification.

Rounding points: everything in promote_types(x.dtype, float32), rounded once, to the code.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

from wan_kernels.common.cost import Cost, num_bytes
from wan_kernels.common.modulation import rows_of_tokens
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
    compute = torch.promote_types(x.dtype, torch.float32)
    weight, bias = (None if each is None else each.to(compute) for each in (weight, bias))
    y = F.layer_norm(x.to(compute), x.shape[-1:], weight, bias, eps)
    if scale is not None and shift is not None:
        y = y * (1 + rows_of_tokens(scale.to(compute), index)) + rows_of_tokens(shift.to(compute), index)
    return quantize(y, dtype)


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
