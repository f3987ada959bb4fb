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


def backward(
    grads: tuple[Tensor | None, Tensor | None],
    inputs: tuple[Tensor, Tensor, Tensor, Tensor | None, float | None],
    outputs: tuple[Tensor, Tensor],
) -> tuple[Tensor | None, ...]:
    q, k, v, k_lengths, scale = inputs
    grad_out, grad_lse = grads
    found = tuple(torch.empty(each.shape, dtype=each.dtype) for each in (q, k, v))
    native.library().attention_backward(
        *found,
        None if grad_out is None else dense_width(grad_out),
        None if grad_lse is None else grad_lse.contiguous(),
        dense_width(outputs[0]),
        outputs[1].contiguous(),
        *map(dense_width, (q, k, v)),
        None if k_lengths is None else k_lengths.contiguous(),
        scale_of(q, scale),
    )
    return (*found, None)


def reject(q: Tensor, k: Tensor, v: Tensor, k_lengths: Tensor | None, scale: float | None) -> str | None:
    if q.shape[-1] % WIDTH_STEP or q.shape[-1] == 0:
        return f"wants H to be a multiple of {WIDTH_STEP}, got {q.shape[-1]}"
    return reject_tensors(q, k, v)


register_backend(
    "attention", "cpu", forward=forward, backward=backward, available=native.cpu_unavailable, reject=reject
)
