"""quantize_heads through the C library."""

import torch
from torch import Tensor

from wan_kernels import native
from wan_kernels.common.cpu import reject_tensors
from wan_kernels.dispatch import register_backend

NAME = "quantize_heads"


def forward(x: Tensor, tokens_per_scale: int, is_smooth: bool) -> tuple[Tensor, Tensor, Tensor]:
    num_samples, length, num_heads, head_width = x.shape
    codes = torch.empty((num_samples, num_heads, length, head_width), dtype=torch.int8)
    scales = torch.empty((num_samples, num_heads, -(-length // tokens_per_scale)))
    mean = torch.empty((num_samples, num_heads, head_width))
    dense = x if x.stride(3) == 1 else x.contiguous()
    native.library().quantize_heads(codes, scales, mean, dense, tokens_per_scale, is_smooth)
    return codes, scales, mean


def reject(x: Tensor, tokens_per_scale: int, is_smooth: bool) -> str | None:
    return reject_tensors(x)


register_backend(NAME, "cpu", forward=forward, available=native.cpu_unavailable, reject=reject)
