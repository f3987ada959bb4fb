"""channel_rms_norm_silu through the C library."""

import torch
from torch import Tensor

from wan_kernels import native
from wan_kernels.common.cpu import gradient_like, reject_tensors
from wan_kernels.dispatch import register_backend
from wan_kernels.ops.channel_rms_norm_silu.layout import dense, layout_of

NAME = "channel_rms_norm_silu"


def forward(x: Tensor, weight: Tensor, apply_silu: bool) -> Tensor:
    x = dense(x)
    out = torch.empty_like(x)
    native.library().channel_rms_norm_silu(out, x, weight, apply_silu)
    return out


def backward(
    grads: tuple[Tensor], inputs: tuple[Tensor, Tensor, bool], outputs: tuple[Tensor], needed: tuple[bool, bool]
) -> tuple[Tensor | None, Tensor | None]:
    x, weight, apply_silu = inputs
    x = dense(x)
    grad_x, grad_weight = torch.empty_like(x) if needed[0] else None, gradient_like(weight, needed[1])
    grad_out = grads[0].contiguous(memory_format=layout_of(x) or torch.contiguous_format)
    native.library().channel_rms_norm_silu_backward(grad_x, grad_weight, grad_out, x, weight, apply_silu)
    return grad_x, grad_weight


def reject(x: Tensor, weight: Tensor, apply_silu: bool) -> str | None:
    if layout_of(x) is None:
        return "needs x in contiguous or channels-last order"
    return reject_tensors(x, weight)


register_backend(NAME, "cpu", forward=forward, backward=backward, available=native.cpu_unavailable, reject=reject)
