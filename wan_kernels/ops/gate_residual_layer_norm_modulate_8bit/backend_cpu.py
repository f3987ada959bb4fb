"""gate_residual_layer_norm_modulate_8bit through the C library."""

import torch
from torch import Tensor

from wan_kernels import native
from wan_kernels.common.cpu import dense_rows, dense_table, reject_tensors
from wan_kernels.dispatch import register_backend

NAME = "gate_residual_layer_norm_modulate_8bit"


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
    dtype: torch.dtype,
) -> tuple[Tensor, Tensor, Tensor]:
    stream = torch.empty(x.shape, dtype=x.dtype)
    out, out_scale = torch.empty(x.shape, dtype=dtype), torch.empty(x.shape[:-1])
    tables = dense_table(gate), dense_table(scale), dense_table(shift)
    native.library().gate_residual_layer_norm_modulate_8bit(
        stream, out, out_scale, dense_rows(x), dense_rows(y), *tables, weight, bias, index, eps
    )
    return stream, out, out_scale


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
    dtype: torch.dtype,
) -> str | None:
    return reject_tensors(x, y, gate, scale, shift, weight, bias)


register_backend(NAME, "cpu", forward=forward, available=native.cpu_unavailable, reject=reject)
