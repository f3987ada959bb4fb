"""upsample_conv2d through the C library: causal_conv3d's kernel, which reads each pixel four times where it lies."""

import torch
from torch import Tensor

from wan_kernels import native
from wan_kernels.common.cpu import reject_tensors
from wan_kernels.common.video import layout_of
from wan_kernels.dispatch import register_backend


def reject(x: Tensor, weight: Tensor, bias: Tensor | None) -> str | None:
    if layout_of(x) is not torch.channels_last_3d:
        return "needs x in channels-last order"
    return reject_tensors(x, weight, bias)


def forward(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    num_samples, _, frames, rows, columns = x.shape
    shape = (num_samples, weight.shape[0], frames, 2 * rows, 2 * columns)
    out = torch.empty(shape, dtype=x.dtype, memory_format=torch.channels_last_3d)
    native.library().upsample_conv2d(out, x, weight, bias)
    return out


register_backend("upsample_conv2d", "cpu", forward=forward, available=native.cpu_unavailable, reject=reject)
