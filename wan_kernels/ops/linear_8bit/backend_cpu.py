"""linear_8bit through the C library: int8. A weight that is not packed is packed anew in each call."""

import torch
from torch import Tensor

from wan_kernels import native
from wan_kernels.common.cpu import DTYPES, dense_rows, dense_table, reject_tensors
from wan_kernels.common.quantize import LIMITS
from wan_kernels.dispatch import register_backend
from wan_kernels.ops.linear_8bit.packing import is_packed, packed_shape


def forward(
    x: Tensor,
    x_scale: Tensor,
    weight: Tensor,
    weight_scale: Tensor,
    out_dtype: torch.dtype,
    bias: Tensor | None,
    residual: Tensor | None,
    gate: Tensor | None,
    index: Tensor | None,
    gelu: bool,
    fast_accum: bool,
) -> tuple[Tensor, Tensor]:
    num_columns = weight_scale.shape[0]
    out = torch.empty((*x.shape[:-1], num_columns), dtype=out_dtype)
    out_scale = torch.empty(x.shape[:-1] if out_dtype in LIMITS else 0)
    if not is_packed(weight):
        packed = torch.empty(packed_shape(num_columns, x.shape[-1]), dtype=torch.int8)
        native.library().pack_linear_8bit(packed, weight)
        weight = packed
    native.library().linear_8bit(
        out,
        out_scale if out_dtype in LIMITS else None,
        dense_rows(x),
        x_scale.contiguous(),
        weight,
        weight_scale,
        bias,
        dense_table(residual),
        dense_table(gate),
        index,
        gelu,
    )
    return out, out_scale


def reject(
    x: Tensor,
    x_scale: Tensor,
    weight: Tensor,
    weight_scale: Tensor,
    out_dtype: torch.dtype,
    bias: Tensor | None,
    residual: Tensor | None,
    gate: Tensor | None,
    index: Tensor | None,
    gelu: bool,
    fast_accum: bool,
) -> str | None:
    if not x.is_cpu:
        return f"needs tensors on the CPU, got {x.device}"
    if x.dtype is not torch.int8:
        return "multiplies int8 only"
    if out_dtype not in DTYPES and out_dtype not in LIMITS:
        return f"has no {str(out_dtype).removeprefix('torch.')} output"
    return reject_tensors(bias, residual, gate)


register_backend("linear_8bit", "cpu", forward=forward, available=native.cpu_unavailable, reject=reject)
