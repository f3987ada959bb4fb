"""layer_norm_modulate in plain PyTorch: the specification.

Rounding points: everything in promote_types(x.dtype, float32), rounded once to out_dtype.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

from wan_kernels.common.cost import Cost, num_bytes
from wan_kernels.common.modulation import rows_of_tokens


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
    compute = torch.promote_types(x.dtype, torch.float32)
    weight, bias = (None if each is None else each.to(compute) for each in (weight, bias))
    y = F.layer_norm(x.to(compute), x.shape[-1:], weight, bias, eps)
    if scale is not None and shift is not None:
        y = y * (1 + rows_of_tokens(scale.to(compute), index)) + rows_of_tokens(shift.to(compute), index)
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
