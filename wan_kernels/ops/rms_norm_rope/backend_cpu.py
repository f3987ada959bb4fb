"""rms_norm_rope through the C library."""

import torch
from torch import Tensor

from wan_kernels import native
from wan_kernels.common.cpu import dense_rows, gradient_like, reject_tensors
from wan_kernels.dispatch import register_backend

Inputs = tuple[Tensor, Tensor, Tensor, Tensor, Tensor, int, list[int], float]


def forward(
    x: Tensor,
    weight: Tensor,
    freqs_t: Tensor,
    freqs_y: Tensor,
    freqs_x: Tensor,
    num_heads: int,
    grid: list[int],
    eps: float,
) -> Tensor:
    out = torch.empty((*x.shape[:2], num_heads, x.shape[2] // num_heads), dtype=x.dtype)
    native.library().rms_norm_rope(out, dense_rows(x), weight, freqs_t, freqs_y, freqs_x, num_heads, grid, eps)
    return out


def backward(
    grads: tuple[Tensor], inputs: Inputs, outputs: tuple[Tensor], needed: tuple[bool, ...]
) -> tuple[Tensor | None, ...]:
    x, weight, *rest = inputs
    x = dense_rows(x)
    grad_x, grad_weight = gradient_like(x, needed[0]), gradient_like(weight, needed[1])
    native.library().rms_norm_rope_backward(grad_x, grad_weight, grads[0].contiguous(), x, weight, *rest)
    return grad_x, grad_weight, None, None, None


def reject(
    x: Tensor,
    weight: Tensor,
    freqs_t: Tensor,
    freqs_y: Tensor,
    freqs_x: Tensor,
    num_heads: int,
    grid: list[int],
    eps: float,
) -> str | None:
    if not freqs_t.dtype == freqs_y.dtype == freqs_x.dtype == torch.float32:
        return "needs float32 tables"
    return reject_tensors(x, weight, freqs_t, freqs_y, freqs_x)


register_backend(
    "rms_norm_rope", "cpu", forward=forward, backward=backward, available=native.cpu_unavailable, reject=reject
)
