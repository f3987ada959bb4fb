"""linear_8bit with PyTorch's own 8-bit products, `torch._int_mm` and `torch._scaled_mm`, and an eager epilogue.

The rival that is always there. On a GPU `_int_mm` wants more than 16 rows and multiples of 8, `_scaled_mm` multiples of
16 and a bfloat16 result; its scales are applied inside. On the CPU there is no row-wise `_scaled_mm`.
"""

import torch
from torch import Tensor

from wan_kernels.dispatch import register_backend
from wan_kernels.ops.linear_8bit.packing import is_packed
from wan_kernels.ops.linear_8bit.reference import epilogue


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
    rows = x.reshape(-1, x.shape[-1])
    shape = (*x.shape[:-1], weight.shape[0])
    if x.dtype is torch.int8:
        product = torch._int_mm(rows, weight.t()).view(shape).to(x_scale.dtype)
        return epilogue(product, x_scale, weight_scale, out_dtype, bias, residual, gate, index, gelu)
    scaled = torch._scaled_mm(
        rows,
        weight.t(),
        scale_a=x_scale.reshape(-1, 1),
        scale_b=weight_scale.view(1, -1),
        out_dtype=torch.bfloat16,
        use_fast_accum=fast_accum,
    )
    ones = torch.ones_like(x_scale), torch.ones_like(weight_scale)
    return epilogue(scaled.view(shape).float(), *ones, out_dtype, bias, residual, gate, index, gelu)


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
    if is_packed(weight):
        return "takes the weight as [N, K]"
    num_columns, width = weight.shape
    if x_scale.numel() == 0 or num_columns == 0 or width == 0:
        return "takes no empty product"
    if x.dtype is torch.int8:
        if not x.is_cpu and (x_scale.numel() <= 16 or num_columns % 8 or width % 8):
            return f"needs more than 16 rows and multiples of 8, got {x_scale.numel()} x {width} x {num_columns}"
        return None
    if x.is_cpu:
        return "has no row-wise float8 product on the CPU"
    if num_columns % 16 or width % 16:
        return f"needs multiples of 16 for float8, got {width} x {num_columns}"
    if out_dtype is not torch.bfloat16:
        return "rounds the float8 product to bfloat16, which only a bfloat16 result bears"
    return None


register_backend("linear_8bit", "torch", forward=forward, reject=reject)
