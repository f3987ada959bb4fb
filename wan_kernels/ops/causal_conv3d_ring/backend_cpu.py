"""causal_conv3d_ring through the C library: causal_conv3d's kernel. Frames are normed as they are read, again for each
tile of outputs that sees them, and rounded only where products are those of bfloat16 pairs. The last frames are copied
to the ring after the products.
"""

import torch
from torch import Tensor

from wan_kernels import native
from wan_kernels.common.conv3d import out_shape
from wan_kernels.common.cpu import reject_tensors
from wan_kernels.common.video import has_channels_inside, layout_of
from wan_kernels.dispatch import register_backend


def reject(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    ring: Tensor,
    position: int,
    norm_weight: Tensor | None,
    residual: Tensor | None,
    stride: list[int],
    padding: list[int],
) -> str | None:
    videos = (ring,) if residual is None else (ring, residual)
    if layout_of(x) is not torch.channels_last_3d or not all(map(has_channels_inside, videos)):
        return "needs x, ring and residual in channels-last order"
    return reject_tensors(x, weight, bias, ring, norm_weight, residual)


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
    out = torch.empty(out_shape(x, weight, stride, padding), dtype=x.dtype, memory_format=torch.channels_last_3d)
    native.library().causal_conv3d_ring(out, ring, x, weight, bias, norm_weight, residual, position, stride, padding)
    return out


register_backend("causal_conv3d_ring", "cpu", forward=forward, available=native.cpu_unavailable, reject=reject)
