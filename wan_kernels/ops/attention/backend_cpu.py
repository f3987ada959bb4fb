"""attention through the C library."""

import torch
from torch import Tensor

from wan_kernels import native
from wan_kernels.common.cpu import reject_tensors
from wan_kernels.dispatch import register_backend
from wan_kernels.ops.attention.reference import scale_of

WIDTH_STEP = 16


def dense_width(x: Tensor) -> Tensor:
    """x itself if its last dimension is contiguous, else a copy."""
    return x if x.stride(-1) == 1 else x.contiguous()


def forward(q: Tensor, k: Tensor, v: Tensor, k_lengths: Tensor | None, scale: float | None) -> tuple[Tensor, Tensor]:
    num_samples, num_queries, num_heads, _ = q.shape
    out, lse = torch.empty(q.shape, dtype=q.dtype), torch.empty(num_samples, num_heads, num_queries)
    inputs = (*map(dense_width, (q, k, v)), None if k_lengths is None else k_lengths.contiguous())
    native.library().attention(out, lse, *inputs, scale_of(q, scale))
    return out, lse


def reject(q: Tensor, k: Tensor, v: Tensor, k_lengths: Tensor | None, scale: float | None) -> str | None:
    if q.shape[-1] % WIDTH_STEP or q.shape[-1] == 0:
        return f"wants H to be a multiple of {WIDTH_STEP}, got {q.shape[-1]}"
    return reject_tensors(q, k, v)


register_backend("attention", "cpu", forward=forward, available=native.cpu_unavailable, reject=reject)
