"""causal_conv3d on oneDNN, float32 on CPU: forward; the gradient is the reference's.

F.conv3d has the same kernels, but for one float32 sample whose B * C * T * Y is at most 20,480 it takes a slow path
instead, which is what decoding a small video chunk by chunk calls. Measured on 2 x86 cores, 16 channels, 4 frames of
96 x 96, 3 x 3 x 3: 110 ms through F.conv3d, 3 to 4 ms here. In bfloat16 F.conv3d itself takes oneDNN.
"""

from typing import Any

import torch
from torch import Tensor

from wan_kernels.common.video import as_video, layout_of
from wan_kernels.dispatch import register_backend
from wan_kernels.ops.causal_conv3d import reference

aten: Any = torch.ops.aten
CHANNELS_LAST = {4: torch.channels_last, 5: torch.channels_last_3d}


def unavailable() -> str | None:
    return None if torch.backends.mkldnn.is_available() else "torch was built without oneDNN"


def reject(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    cache: Tensor | None,
    stride: list[int],
    padding: list[int],
    return_cache: bool,
) -> str | None:
    if x.device.type != "cpu" or x.dtype is not torch.float32:
        return "takes float32 on cpu"
    return "takes no empty tensors" if x.numel() == 0 or weight.numel() == 0 else None


def forward(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    cache: Tensor | None,
    stride: list[int],
    padding: list[int],
    return_cache: bool,
) -> tuple[Tensor, Tensor]:
    frames, kernel, strides, pads = reference.lower(x, weight, cache, stride, padding)
    layout = layout_of(x)
    inner_layout = CHANNELS_LAST[frames.dim()] if layout is torch.channels_last_3d else layout
    frames, kernel = (each.contiguous(memory_format=inner_layout) for each in (frames, kernel))
    bias = None if bias is None else bias.contiguous()
    y = aten.mkldnn_convolution(frames, kernel, bias, pads, strides, [1] * len(pads), 1)
    y = as_video(y, x.shape[0], x.shape[2]) if y.dim() == 4 else y
    num_kept = reference.num_kept(weight, stride, return_cache)
    return y.contiguous(memory_format=layout), reference.last_frames(x, cache, num_kept)


register_backend("causal_conv3d", "onednn", forward=forward, available=unavailable, reject=reject)
