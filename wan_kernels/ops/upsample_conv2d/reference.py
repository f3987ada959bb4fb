"""upsample_conv2d in plain PyTorch: the specification.

Rounding points: those of torch's convolution in x.dtype (accumulates in float32 or wider, rounds once).
"""

import torch
from torch import Tensor
from torch.nn import functional as F

from wan_kernels.common.cost import Cost, num_bytes
from wan_kernels.common.video import as_images, as_video, layout_of


def doubled(x: Tensor) -> Tensor:
    """Every frame with twice the rows and columns, [B*T, C, 2 Y, 2 X]."""
    return as_images(x).repeat_interleave(2, -2).repeat_interleave(2, -1)


def forward(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    y = F.conv2d(doubled(x), weight, bias, padding=1)
    return as_video(y, x.shape[0], x.shape[2]).contiguous(memory_format=layout_of(x))


def backward(
    grads: tuple[Tensor],
    inputs: tuple[Tensor, Tensor, Tensor | None],
    outputs: tuple[Tensor],
    needed: tuple[bool, ...],
) -> tuple[Tensor | None, ...]:
    """That of the convolution; a pixel's gradient is the sum of those of the four it stands for."""
    x, weight, _ = inputs
    grad_doubled, grad_weight, grad_bias = torch.ops.aten.convolution_backward(
        as_images(grads[0]),
        doubled(x),
        weight,
        [weight.shape[0]],
        [1, 1],
        [1, 1],
        [1, 1],
        False,
        [0, 0],
        1,
        list(needed),
    )
    grad_x = None
    if needed[0]:
        pixels = grad_doubled.unflatten(-1, (-1, 2)).unflatten(-3, (-1, 2)).sum((-3, -1))
        grad_x = as_video(pixels, x.shape[0], x.shape[2]).contiguous(memory_format=layout_of(x))
    return grad_x, grad_weight, grad_bias


def cost(x: Tensor, weight: Tensor, bias: Tensor | None) -> Cost:
    """One multiply-add per tap, input channel and output element; padding is counted as if it were data."""
    num_outputs = 4 * x[:, 0].numel() * weight.shape[0]
    return Cost(2 * num_outputs * weight[0].numel(), num_bytes(x, weight, bias) + num_outputs * x.element_size())
