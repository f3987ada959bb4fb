"""layer_norm_modulate_8bit through the C library."""

import torch
from torch import Tensor

from wan_kernels import native
from wan_kernels.common.cpu import dense_rows, dense_table, reject_tensors
from wan_kernels.dispatch import register_backend

NAME = "layer_norm_modulate_8bit"


def forward(
    x: Tensor,
    scale: Tensor | None,
    shift: Tensor | None,
    weight: Tensor | None,
    bias: Tensor | None,
    index: Tensor | None,
    eps: float,
    dtype: torch.dtype,
) -> tuple[Tensor, Tensor]:
    out, out_scale = torch.empty(x.shape, dtype=dtype), torch.empty(x.shape[:-1])
    tables = dense_table(scale), dense_table(shift)
    native.library().layer_norm_modulate_8bit(out, out_scale, dense_rows(x), *tables, weight, bias, index, eps)
    return out, out_scale


def reject(
    x: Tensor,
    scale: Tensor | None,
    shift: Tensor | None,
    weight: Tensor | None,
    bias: Tensor | None,
    index: Tensor | None,
    eps: float,
    dtype: torch.dtype,
) -> str | None:
    return reject_tensors(x, scale, shift, weight, bias)


register_backend(NAME, "cpu", forward=forward, available=native.cpu_unavailable, reject=reject)
