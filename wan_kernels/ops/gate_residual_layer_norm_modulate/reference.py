"""gate_residual_layer_norm_modulate in plain PyTorch: the specification.

Rounding points: everything in promote_types(x.dtype, float32); the stream is rounded once to x.dtype, and what is
normalised is the rounded stream; the result is rounded once to out_dtype.
"""

import torch
from torch import Tensor

from wan_kernels.common.cost import Cost, num_bytes
from wan_kernels.common.modulation import add_gated, normalise_and_modulate


def forward(
    x: Tensor,
    y: Tensor,
    gate: Tensor | None,
    scale: Tensor | None,
    shift: Tensor | None,
    weight: Tensor | None,
    bias: Tensor | None,
    index: Tensor | None,
    eps: float,
    out_dtype: torch.dtype | None,
) -> tuple[Tensor, Tensor]:
    stream = add_gated(x, y, gate, index)
    normed = normalise_and_modulate(stream, scale, shift, weight, bias, index, eps)
    return stream, normed.to(out_dtype or x.dtype).contiguous()


def cost(
    x: Tensor,
    y: Tensor,
    gate: Tensor | None,
    scale: Tensor | None,
    shift: Tensor | None,
    weight: Tensor | None,
    bias: Tensor | None,
    index: Tensor | None,
    eps: float,
    out_dtype: torch.dtype | None,
) -> Cost:
    """An addition, 6 operations per element for mean, variance and normalise; each multiply-add adds 2, a gate 1."""
    per_element = 7 + (gate is not None) + 2 * (weight is not None) + 2 * (scale is not None)
    out_bytes = x.numel() * (out_dtype or x.dtype).itemsize
    read = num_bytes(x, y, gate, scale, shift, weight, bias, index)
    return Cost(per_element * x.numel(), read + num_bytes(x) + out_bytes)
