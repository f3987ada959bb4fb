"""merge_attention through the C library."""

import torch
from torch import Tensor

from wan_kernels import native
from wan_kernels.common.cpu import dense_rows, gradient_like, reject_tensors
from wan_kernels.dispatch import register_backend

Inputs = tuple[Tensor, Tensor, Tensor, Tensor]
NAME = "merge_attention"


def dense(out_a: Tensor, lse_a: Tensor, out_b: Tensor, lse_b: Tensor) -> Inputs:
    return dense_rows(out_a), lse_a.contiguous(), dense_rows(out_b), lse_b.contiguous()


def forward(out_a: Tensor, lse_a: Tensor, out_b: Tensor, lse_b: Tensor) -> tuple[Tensor, Tensor]:
    out, lse = torch.empty(out_a.shape, dtype=out_a.dtype), torch.empty(lse_a.shape)
    native.library().merge_attention(out, lse, *dense(out_a, lse_a, out_b, lse_b))
    return out, lse


def backward(
    grads: tuple[Tensor | None, Tensor | None],
    inputs: Inputs,
    outputs: tuple[Tensor, Tensor],
    needed: tuple[bool, ...],
) -> tuple[Tensor | None, ...]:
    grad_out, grad_lse = (None if grad is None else grad.contiguous() for grad in grads)
    found = tuple(map(gradient_like, inputs, needed))
    native.library().merge_attention_backward(*found, grad_out, grad_lse, *dense(*inputs))
    return found


def reject(out_a: Tensor, lse_a: Tensor, out_b: Tensor, lse_b: Tensor) -> str | None:
    return reject_tensors(out_a, lse_a, out_b, lse_b)


register_backend(NAME, "cpu", forward=forward, backward=backward, available=native.cpu_unavailable, reject=reject)
