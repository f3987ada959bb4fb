"""causal_conv3d in plain PyTorch: the specification.

Rounding points: those of torch's convolution in x.dtype (accumulates in float32 or wider, rounds once).
"""

import math
from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from wan_kernels.common.conv3d import out_shape
from wan_kernels.common.cost import Cost, num_bytes
from wan_kernels.common.video import as_images, as_video, layout_of


class Lowered(NamedTuple):
    """The plain convolution a call comes down to: frames [B, C, T, Y, X], or images [B*T, C, Y, X]."""

    frames: Tensor
    kernel: Tensor
    stride: tuple[int, ...]
    padding: tuple[int, ...]


def pad_space(x: Tensor, padding: list[int]) -> tuple[Tensor, tuple[int, int]]:
    """x with whatever zero rows a convolution cannot add itself, and the (rows, columns) that it adds on both sides."""
    top, bottom, left, right = padding
    if top == bottom and left == right:
        return x, (top, left)
    return F.pad(x, (left, right, top, bottom)), (0, 0)


def with_history(x: Tensor, cache: Tensor | None, num_history: int) -> Tensor:
    """The frames the kernel slides over: the cache, or as many frames of zeros, then x."""
    if num_history == 0:
        return x
    return F.pad(x, (0, 0, 0, 0, num_history, 0)) if cache is None else torch.cat((cache, x), dim=2)


def last_frames(x: Tensor, cache: Tensor | None, num_history: int) -> Tensor:
    """The next chunk's cache: an own copy of the last frames of (cache, x)."""
    frames = x if x.shape[2] >= num_history else with_history(x, cache, num_history)
    return frames.narrow(2, frames.shape[2] - num_history, num_history).clone(memory_format=layout_of(x))


def num_kept(weight: Tensor, stride: list[int], return_cache: bool) -> int:
    return weight.shape[2] - stride[0] if return_cache else 0


def lower(x: Tensor, weight: Tensor, cache: Tensor | None, stride: list[int], padding: list[int]) -> Lowered:
    kernel_t, stride_t = weight.shape[2], stride[0]
    # One frame after nothing but zeros (an image): only the last tap of the kernel sees it.
    is_image = cache is None and x.shape[2] == 1 and stride_t == 1
    if kernel_t == 1 or is_image:
        images, pad_yx = pad_space(as_images(x), padding)
        return Lowered(images, weight[:, :, -1], tuple(stride[1:]), pad_yx)
    frames, pad_yx = pad_space(with_history(x, cache, kernel_t - stride_t), padding)
    return Lowered(frames, weight, tuple(stride), (0, *pad_yx))


def forward(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    cache: Tensor | None,
    stride: list[int],
    padding: list[int],
    return_cache: bool,
) -> tuple[Tensor, Tensor]:
    """y, and the new cache (with no frames unless return_cache)."""
    frames, kernel, strides, pads = lower(x, weight, cache, stride, padding)
    if frames.dim() == 4:
        y = as_video(F.conv2d(frames, kernel, bias, strides, pads), x.shape[0], x.shape[2])
    else:
        y = F.conv3d(frames, kernel, bias, strides, pads)
    return y.contiguous(memory_format=layout_of(x)), last_frames(x, cache, num_kept(weight, stride, return_cache))


def backward(
    grads: tuple[Tensor | None, ...],
    inputs: tuple[Tensor, Tensor, Tensor | None, Tensor | None, list[int], list[int], bool],
    outputs: tuple[Tensor, ...],
    needed: tuple[bool, ...],
) -> tuple[Tensor | None, ...]:
    """The convolution's own backward, and autograd only for the moves around it, so that it is not run again."""
    x, weight, _, cache, stride, padding, return_cache = inputs
    grad_y, grad_cache = grads
    sources = [
        each.detach().requires_grad_(is_needed) if each is not None else None
        for each, is_needed in zip((x, weight, cache), (needed[0], needed[1], needed[3]), strict=True)
    ]
    with torch.enable_grad():
        source_x, source_weight, source_cache = sources
        assert source_x is not None and source_weight is not None
        lowered = lower(source_x, source_weight, source_cache, stride, padding)
        kept = last_frames(source_x, source_cache, num_kept(weight, stride, return_cache))

    grad_bias, moved = None, [(kept, grad_cache)]
    if grad_y is not None:
        grad_frames, grad_kernel, grad_bias = _convolution_backward(grad_y, lowered, needed[2])
        moved += [(lowered.frames, grad_frames), (lowered.kernel, grad_kernel)]
    moved = [(y, grad) for y, grad in moved if y.requires_grad and grad is not None]
    wanted = [each for each in sources if each is not None and each.requires_grad]
    found: Iterator[Tensor | None] = iter(())
    if moved and wanted:
        ys, cotangents = zip(*moved, strict=True)
        found = iter(torch.autograd.grad(ys, wanted, cotangents, allow_unused=True))
    grad_x, grad_weight, grad_history = (
        next(found, None) if each is not None and each.requires_grad else None for each in sources
    )
    return grad_x, grad_weight, grad_bias, grad_history


def _convolution_backward(grad_y: Tensor, lowered: Lowered, needs_bias: bool) -> tuple[Tensor | None, ...]:
    frames, kernel, stride, padding = lowered
    num_dims = frames.dim() - 2
    return torch.ops.aten.convolution_backward(
        as_images(grad_y) if num_dims == 2 else grad_y,
        frames.detach(),
        kernel.detach(),
        [kernel.shape[0]],
        stride,
        padding,
        [1] * num_dims,
        False,
        [0] * num_dims,
        1,
        [frames.requires_grad, kernel.requires_grad, needs_bias],
    )


def cost(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    cache: Tensor | None,
    stride: list[int],
    padding: list[int],
    return_cache: bool,
) -> Cost:
    """One multiply-add per tap, input channel and output element; padding is counted as if it were data."""
    num_outputs = math.prod(out_shape(x, weight, stride, padding))
    num_history = weight.shape[2] - stride[0]
    kept_bytes = x[:, :, :1].numel() * num_history * x.element_size() if return_cache else 0
    moved_bytes = num_bytes(x, weight, bias, cache) + num_outputs * x.element_size() + kept_bytes
    return Cost(2 * num_outputs * weight[0].numel(), moved_bytes)
