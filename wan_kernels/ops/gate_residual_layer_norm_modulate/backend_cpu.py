"""gate_residual_layer_norm_modulate through the C library: the row that was just added is normalised from the cache."""

import torch
from torch import Tensor

from wan_kernels import native
from wan_kernels.common.cpu import DTYPES, dense_rows, dense_table, gradient_like, reject_tensors
from wan_kernels.dispatch import register_backend

Inputs = tuple[
    Tensor,
    Tensor,
    Tensor | None,
    Tensor | None,
    Tensor | None,
    Tensor | None,
    Tensor | None,
    Tensor | None,
    float,
    torch.dtype | None,
]
NAME = "gate_residual_layer_norm_modulate"


def forward(
    x: Tensor,
    y: Tensor,
    gate: Tensor | None,
    scale: Tensor | None,
    shift: Tensor | None,
    weight: Tensor | None,
    bias: Tensor | None,
    index: Tensor | None,
    eps: float,
    out_dtype: torch.dtype | None,
) -> tuple[Tensor, Tensor]:
    stream, out = torch.empty(x.shape, dtype=x.dtype), torch.empty(x.shape, dtype=out_dtype or x.dtype)
    tables = dense_table(gate), dense_table(scale), dense_table(shift)
    native.library().gate_residual_layer_norm_modulate(
        stream, out, dense_rows(x), dense_rows(y), *tables, weight, bias, index, eps
    )
    return stream, out


def backward(
    grads: tuple[Tensor | None, ...], inputs: Inputs, outputs: tuple[Tensor, Tensor], needed: tuple[bool, ...]
) -> tuple[Tensor | None, ...]:
    x, y, gate, scale, shift, weight, bias, index, eps, _ = inputs
    found = tuple(map(gradient_like, (x, y, gate, scale, shift, weight, bias), needed))
    tables = dense_table(gate), dense_table(scale), dense_table(shift)
    native.library().gate_residual_layer_norm_modulate_backward(
        *found, *map(dense_table, grads), dense_rows(y), outputs[0], *tables, weight, bias, index, eps
    )
    return (*found, None)


def reject(
    x: Tensor,
    y: Tensor,
    gate: Tensor | None,
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
    return reject_tensors(x, y, gate, scale, shift, weight, bias)


register_backend(NAME, "cpu", forward=forward, backward=backward, available=native.cpu_unavailable, reject=reject)
