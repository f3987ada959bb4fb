"""gate_residual through the C library."""

import torch
from torch import Tensor

from wan_kernels import native
from wan_kernels.common.cpu import dense_rows, gradient_like, reject_tensors
from wan_kernels.dispatch import register_backend

Inputs = tuple[Tensor, Tensor, Tensor, Tensor | None]


def forward(x: Tensor, y: Tensor, gate: Tensor, index: Tensor | None) -> Tensor:
    out = torch.empty(x.shape, dtype=x.dtype)
    native.library().gate_residual(out, dense_rows(x), dense_rows(y), dense_rows(gate), index)
    return out


def backward(
    grads: tuple[Tensor], inputs: Inputs, outputs: tuple[Tensor], needed: tuple[bool, ...]
) -> tuple[Tensor | None, ...]:
    x, y, gate, index = inputs
    y, grad_out = dense_rows(y), dense_rows(grads[0])
    found = gradient_like(x, needed[0]), gradient_like(y, needed[1]), gradient_like(gate, needed[2])
    native.library().gate_residual_backward(*found, grad_out, y, dense_rows(gate), index)
    return (*found, None)


def reject(x: Tensor, y: Tensor, gate: Tensor, index: Tensor | None) -> str | None:
    return reject_tensors(x, y, gate)


register_backend(
    "gate_residual", "cpu", forward=forward, backward=backward, available=native.cpu_unavailable, reject=reject
)
