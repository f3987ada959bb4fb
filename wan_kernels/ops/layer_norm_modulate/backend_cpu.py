"""layer_norm_modulate through the C library."""

import torch
from torch import Tensor

from wan_kernels import native
from wan_kernels.common.cpu import DTYPES, dense_rows, dense_table, gradient_like, reject_tensors
from wan_kernels.dispatch import register_backend

Inputs = tuple[
    Tensor, Tensor | None, Tensor | None, Tensor | None, Tensor | None, Tensor | None, float, torch.dtype | None
]
NAME = "layer_norm_modulate"


def forward(
    x: Tensor,
    scale: Tensor | None,
    shift: Tensor | None,
    weight: Tensor | None,
    bias: Tensor | None,
    index: Tensor | None,
    eps: float,
    out_dtype: torch.dtype | None,
) -> Tensor:
    x = dense_rows(x)
    out = torch.empty(x.shape, dtype=out_dtype or x.dtype)
    native.library().layer_norm_modulate(out, x, dense_table(scale), dense_table(shift), weight, bias, index, eps)
    return out


def backward(
    grads: tuple[Tensor], inputs: Inputs, outputs: tuple[Tensor], needed: tuple[bool, ...]
) -> tuple[Tensor | None, ...]:
    x, scale, shift, weight, bias, index, eps, _ = inputs
    x = dense_rows(x)
    found = tuple(map(gradient_like, (x, scale, shift, weight, bias), needed))
    tables = dense_table(scale), dense_table(shift)
    native.library().layer_norm_modulate_backward(*found, dense_rows(grads[0]), x, *tables, weight, bias, index, eps)
    return (*found, None)


def reject(
    x: Tensor,
    scale: Tensor | None,
    shift: Tensor | None,
    weight: Tensor | None,
    bias: Tensor | None,
    index: Tensor | None,
    eps: float,
    out_dtype: torch.dtype | None,
) -> str | None:
    if out_dtype is not None and out_dtype not in DTYPES:
        return f"has no {str(out_dtype).removeprefix('torch.')} output"
    return reject_tensors(x, scale, shift, weight, bias)


register_backend(NAME, "cpu", forward=forward, backward=backward, available=native.cpu_unavailable, reject=reject)
