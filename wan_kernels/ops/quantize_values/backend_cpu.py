"""quantize_values through the C library."""

import torch
from torch import Tensor

from wan_kernels import native
from wan_kernels.common.cpu import reject_tensors
from wan_kernels.dispatch import register_backend
from wan_kernels.ops.quantize_values.reference import num_blocks, num_positions

NAME = "quantize_values"


def forward(
    v: Tensor, dtype: torch.dtype, tokens_per_scale: int | None, is_smooth: bool, is_permuted: bool
) -> tuple[Tensor, Tensor, Tensor]:
    num_samples, length, num_heads, head_width = v.shape
    codes = torch.empty((num_samples, num_heads, head_width, num_positions(length)), dtype=dtype)
    scales = torch.empty((num_samples, num_heads, num_blocks(length, tokens_per_scale), head_width))
    mean = torch.empty((num_samples, num_heads, head_width))
    options = tokens_per_scale or 0, is_smooth, is_permuted
    native.library().quantize_values(codes, scales, mean, with_dense_heads(v), *options)
    return codes, scales, mean


def with_dense_heads(v: Tensor) -> Tensor:
    """v itself if its heads lie side by side, as in a slice of a fused projection, else a copy."""
    is_dense = v.stride(3) == 1 and v.stride(2) == v.shape[3]
    return v if is_dense else v.contiguous()


def reject(
    v: Tensor, dtype: torch.dtype, tokens_per_scale: int | None, is_smooth: bool, is_permuted: bool
) -> str | None:
    return reject_tensors(v)


register_backend(NAME, "cpu", forward=forward, available=native.cpu_unavailable, reject=reject)
