"""How videos [B, C, T, Y, X] lie in memory."""

import torch
from torch import Tensor


def layout_of(x: Tensor) -> torch.memory_format:
    """Channels-last where x is channels-last and not also contiguous; what comes out of a convolution has the same."""
    is_channels_last = x.is_contiguous(memory_format=torch.channels_last_3d) and not x.is_contiguous()
    return torch.channels_last_3d if is_channels_last else torch.contiguous_format


def has_channels_inside(x: Tensor) -> bool:
    """Whether a pixel's channels lie side by side."""
    return x.shape[1] == 1 or x.stride(1) == 1


def as_images(x: Tensor) -> Tensor:
    """[B, C, T, Y, X] -> [B*T, C, Y, X]; a view when x is channels-last."""
    return x.transpose(1, 2).flatten(0, 1)


def as_video(images: Tensor, num_samples: int, num_frames: int) -> Tensor:
    """[B*T, C, Y, X] -> [B, C, T, Y, X]."""
    return images.unflatten(0, (num_samples, num_frames)).transpose(1, 2)
