"""rms_norm through the C library."""

import torch
from torch import Tensor

from wan_kernels import native
from wan_kernels.common.cpu import dense_rows, gradient_like, reject_tensors
from wan_kernels.dispatch import register_backend


def forward(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    x = dense_rows(x)
    out = torch.empty(x.shape, dtype=x.dtype)
    native.library().rms_norm(out, x, weight, eps)
    return out


def backward(
    grads: tuple[Tensor], inputs: tuple[Tensor, Tensor, float], outputs: tuple[Tensor], needed: tuple[bool, bool]
) -> tuple[Tensor | None, Tensor | None]:
    x, weight, eps = inputs
    x = dense_rows(x)
    grad_x, grad_weight = gradient_like(x, needed[0]), gradient_like(weight, needed[1])
    native.library().rms_norm_backward(grad_x, grad_weight, dense_rows(grads[0]), x, weight, eps)
    return grad_x, grad_weight


def reject(x: Tensor, weight: Tensor, eps: float) -> str | None:
    return reject_tensors(x, weight)


register_backend("rms_norm", "cpu", forward=forward, backward=backward, available=native.cpu_unavailable, reject=reject)
