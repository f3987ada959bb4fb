"""causal_conv3d in plain PyTorch: the specification.

Rounding points: those of torch's convolution in x.dtype (accumulates in float32 or wider, rounds once).
"""

import torch
from torch import Tensor
from torch.nn import functional as F


def as_images(x: Tensor) -> Tensor:
    """[B, C, T, Y, X] -> [B*T, C, Y, X]; a view when x is channels-last."""
    return x.transpose(1, 2).flatten(0, 1)


def as_video(images: Tensor, num_samples: int) -> Tensor:
    """[B*T, C, Y, X] -> [B, C, T, Y, X]."""
    return images.unflatten(0, (num_samples, -1)).transpose(1, 2)


def pad_space(x: Tensor, padding: list[int] | tuple[int, ...]) -> tuple[Tensor, tuple[int, int]]:
    """x with whatever zero rows the convolution cannot add itself, and the (rows, columns) that it adds on both sides."""
    top, bottom, left, right = padding
    if top == bottom and left == right:
        return x, (top, left)
    return F.pad(x, (left, right, top, bottom)), (0, 0)


def with_history(x: Tensor, cache: Tensor | None, num_history: int) -> Tensor:
    """The frames the kernel slides over: the cache, or as many frames of zeros, then x."""
    if cache is not None:
        return torch.cat((cache, x), dim=2)
    return F.pad(x, (0, 0, 0, 0, num_history, 0)) if num_history else x


def last_frames(x: Tensor, cache: Tensor | None, num_history: int) -> Tensor:
    """The next chunk's cache: an own copy of the last frames of (cache, x)."""
    frames = x if x.shape[2] >= num_history else with_history(x, cache, num_history)
    return frames[:, :, frames.shape[2] - num_history :].clone()


def convolve(
    x: Tensor, weight: Tensor, bias: Tensor | None, cache: Tensor | None, stride: list[int], padding: list[int]
) -> Tensor:
    kernel_t, stride_t = weight.shape[2], stride[0]
    # One frame after nothing but zeros (an image): only the last tap of the kernel sees it.
    is_image = cache is None and x.shape[2] == 1 and stride_t == 1
    if kernel_t == 1 or is_image:
        frames = x if stride_t == 1 else x[:, :, ::stride_t]
        images, pad_yx = pad_space(as_images(frames), padding)
        return as_video(F.conv2d(images, weight[:, :, -1], bias, tuple(stride[1:]), pad_yx), x.shape[0])
    frames = with_history(x, cache, kernel_t - stride_t)
    frames, pad_yx = pad_space(frames, padding)
    return F.conv3d(frames, weight, bias, tuple(stride), (0, *pad_yx))


def forward(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    cache: Tensor | None,
    stride: list[int],
    padding: list[int],
    return_cache: bool,
) -> tuple[Tensor, Tensor]:
    num_history = weight.shape[2] - stride[0]
    y = convolve(x, weight, bias, cache, stride, padding)
    return y, last_frames(x, cache, num_history if return_cache else 0)
