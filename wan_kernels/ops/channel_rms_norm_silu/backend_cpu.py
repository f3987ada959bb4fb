"""channel_rms_norm_silu through the C library."""

import torch
from torch import Tensor

from wan_kernels import native
from wan_kernels.common.cpu import gradient_like, reject_tensors
from wan_kernels.dispatch import register_backend

NAME = "channel_rms_norm_silu"


def forward(x: Tensor, weight: Tensor, apply_silu: bool) -> Tensor:
    x = _dense(x)
    out = torch.empty_like(x)
    native.library().channel_rms_norm_silu(out, x, weight, apply_silu)
    return out


def backward(
    grads: tuple[Tensor], inputs: tuple[Tensor, Tensor, bool], outputs: tuple[Tensor], needed: tuple[bool, bool]
) -> tuple[Tensor | None, Tensor | None]:
    x, weight, apply_silu = inputs
    x = _dense(x)
    grad_x, grad_weight = torch.empty_like(x) if needed[0] else None, gradient_like(weight, needed[1])
    grad_out = grads[0].contiguous(memory_format=_layout(x) or torch.contiguous_format)
    native.library().channel_rms_norm_silu_backward(grad_x, grad_weight, grad_out, x, weight, apply_silu)
    return grad_x, grad_weight


def reject(x: Tensor, weight: Tensor, apply_silu: bool) -> str | None:
    if _layout(x) is None:
        return "needs x in contiguous or channels-last order"
    return reject_tensors(x, weight)


def _dense(x: Tensor) -> Tensor:
    """x itself, or a copy without the gaps of a slice."""
    return x.contiguous(memory_format=_layout(x) or torch.contiguous_format)


def _layout(x: Tensor) -> torch.memory_format | None:
    """Which of the two layouts x is in, gaps allowed."""
    if x.is_contiguous():
        return torch.contiguous_format
    steps = list(zip(x.stride(), x.shape, strict=True))
    if _descends(steps):
        return torch.contiguous_format
    if x.dim() in (4, 5) and _descends([steps[0], *steps[2:], steps[1]]):
        return torch.channels_last_3d if x.dim() == 5 else torch.channels_last
    return None


def _descends(steps: list[tuple[int, int]]) -> bool:
    """Whether each (stride, size) steps over the whole of the next; sizes of 1 do not count."""
    reach = 0
    for step, size in reversed(steps):
        if size == 1:
            continue
        if step <= reach:
            return False
        reach = step * (size - 1)
    return True


register_backend(NAME, "cpu", forward=forward, backward=backward, available=native.cpu_unavailable, reject=reject)
