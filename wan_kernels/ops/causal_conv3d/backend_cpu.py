"""causal_conv3d through the C library: Winograd's F(2x2, 3x3), for 16-bit types F(4x4, 3x3), plain products for other
kernels than 3 x 3: those of bfloat16 in pairs where AVX512-BF16 can multiply them, everything else in float32, whatever
the type. It leaves no more error than oneDNN's sums.

Channels must lie side by side. x and its history are read where they are: nothing is joined, padded or copied but the
new history. The gradient is the reference's.
"""

import torch
from torch import Tensor

from wan_kernels import native
from wan_kernels.common.conv3d import out_shape
from wan_kernels.common.cpu import reject_tensors
from wan_kernels.common.video import has_channels_inside, layout_of
from wan_kernels.dispatch import register_backend
from wan_kernels.ops.causal_conv3d import reference


def reject(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    cache: Tensor | None,
    stride: list[int],
    padding: list[int],
    return_cache: bool,
) -> str | None:
    if layout_of(x) is not torch.channels_last_3d or not (cache is None or has_channels_inside(cache)):
        return "needs x in channels-last order"
    return reject_tensors(x, weight, bias, cache)


def forward(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    cache: Tensor | None,
    stride: list[int],
    padding: list[int],
    return_cache: bool,
) -> tuple[Tensor, Tensor]:
    out = torch.empty(out_shape(x, weight, stride, padding), dtype=x.dtype, memory_format=torch.channels_last_3d)
    native.library().causal_conv3d(out, x, weight, bias, cache, stride, padding)
    return out, reference.last_frames(x, cache, reference.num_kept(weight, stride, return_cache))


register_backend("causal_conv3d", "cpu", forward=forward, available=native.cpu_unavailable, reject=reject)
