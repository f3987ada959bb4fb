"""causal_conv3d_ring in plain PyTorch: the specification.

Rounding points: the normed frames to x.dtype, the convolution to x.dtype, the sum with the residual to x.dtype. A
backend may leave out any but the last.
"""

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from wan_kernels.common.channel_norm import channel_rms_norm
from wan_kernels.common.conv3d import out_shape
from wan_kernels.common.cost import Cost, num_bytes
from wan_kernels.common.video import layout_of


def history(x: Tensor, ring: Tensor, position: int, num_frames: int) -> Tensor:
    """The `num_frames` frames before x in order of time, [B, C, num_frames, Y, X]; zeros before the first of all."""
    frames = [
        ring[:, :, at % ring.shape[2]] if at >= 0 else torch.zeros_like(x[:, :, 0])
        for at in range(position - num_frames, position)
    ]
    return torch.stack(frames, dim=2) if frames else x[:, :, :0]


def write(x: Tensor, ring: Tensor, position: int, num_frames: int) -> None:
    """The last of x's frames, `num_frames` at most, each to its slot."""
    for t in range(max(0, x.shape[2] - num_frames), x.shape[2]):
        ring[:, :, (position + t) % ring.shape[2]].copy_(x[:, :, t])


def forward(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    ring: Tensor,
    position: int,
    norm_weight: Tensor | None,
    residual: Tensor | None,
    stride: list[int],
    padding: list[int],
) -> Tensor:
    num_history = weight.shape[2] - stride[0]
    frames = torch.cat((history(x, ring, position, num_history), x), dim=2)
    if norm_weight is not None:
        frames = channel_rms_norm(frames, norm_weight, apply_silu=True)
    top, bottom, left, right = padding
    y = F.conv3d(F.pad(frames, (left, right, top, bottom)), weight, bias, stride)
    write(x, ring, position, num_history)
    return (y if residual is None else y + residual).contiguous(memory_format=layout_of(x))


def cost(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    ring: Tensor,
    position: int,
    norm_weight: Tensor | None,
    residual: Tensor | None,
    stride: list[int],
    padding: list[int],
) -> Cost:
    """One multiply-add per tap, input channel and output element, padding counted as data; the norm is not counted."""
    num_outputs = math.prod(out_shape(x, weight, stride, padding))
    num_history = weight.shape[2] - stride[0]
    frame_bytes = x[:, :, :1].numel() * x.element_size()
    ring_bytes = frame_bytes * (min(position, num_history) + min(x.shape[2], num_history))
    moved_bytes = num_bytes(x, weight, bias, norm_weight, residual) + ring_bytes + num_outputs * x.element_size()
    return Cost(2 * num_outputs * weight[0].numel(), moved_bytes)
