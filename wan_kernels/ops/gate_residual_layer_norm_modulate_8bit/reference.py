"""gate_residual_layer_norm_modulate_8bit in plain PyTorch: the specification.

Rounding points: everything in promote_types(x.dtype, float32); the stream is rounded once to x.dtype, and what is
normalised is the rounded stream; the result is rounded once, to the code.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from wan_kernels.common.cost import Cost, num_bytes
from wan_kernels.common.modulation import add_gated, normalise_and_modulate
from wan_kernels.common.quantize import dequantize, quantize


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
    dtype: torch.dtype,
) -> tuple[Tensor, Tensor, Tensor]:
    stream = add_gated(x, y, gate, index)
    return stream, *quantize(normalise_and_modulate(stream, scale, shift, weight, bias, index, eps), dtype)


def dequantized(outputs: tuple[Tensor, Tensor, Tensor], args: Mapping[str, Any]) -> Tensor:
    """What the codes of the normalised stream stand for."""
    return dequantize(*outputs[1:])


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
    dtype: torch.dtype,
) -> Cost:
    """As gate_residual_layer_norm_modulate, and 4 operations per element to quantise."""
    per_element = 11 + (gate is not None) + 2 * (weight is not None) + 2 * (scale is not None)
    num_rows = x.shape[0] * x.shape[1]
    read = num_bytes(x, y, gate, scale, shift, weight, bias, index)
    return Cost(per_element * x.numel(), read + num_bytes(x) + x.numel() + 4 * num_rows)
