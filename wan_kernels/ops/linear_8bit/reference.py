"""linear_8bit in plain PyTorch: the specification.

Rounding points: the product and everything after it in promote_types(x_scale.dtype, float32), rounded once to
out_dtype. In float32 an int8 product of more than 2^24 / 127^2 terms rounds where kernels sum exactly.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

from wan_kernels.common.cost import Cost, num_bytes
from wan_kernels.common.modulation import rows_of_tokens
from wan_kernels.common.quantize import LIMITS, quantize
from wan_kernels.ops.linear_8bit.packing import is_packed, unpack

MAX_INT8_WIDTH = 2**16


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
    compute = torch.promote_types(x_scale.dtype, torch.float32)
    if is_packed(weight):
        weight = unpack(weight, weight_scale.shape[0], x.shape[-1])
    product = F.linear(x.to(compute), weight.to(compute))
    return epilogue(product, x_scale, weight_scale, out_dtype, bias, residual, gate, index, gelu)


def epilogue(
    product: Tensor,
    x_scale: Tensor,
    weight_scale: Tensor,
    out_dtype: torch.dtype,
    bias: Tensor | None,
    residual: Tensor | None,
    gate: Tensor | None,
    index: Tensor | None,
    gelu: bool,
) -> tuple[Tensor, Tensor]:
    """What follows the product, in the product's dtype. Scales: an empty tensor unless out_dtype is an 8-bit one."""
    y = product * x_scale.unsqueeze(-1) * weight_scale
    if bias is not None:
        y = y + bias.to(y.dtype)
    if gelu:
        y = F.gelu(y, approximate="tanh")
    if gate is not None:
        y = y * rows_of_tokens(gate.to(y.dtype), index)
    if residual is not None:
        y = residual.to(y.dtype) + y
    if out_dtype in LIMITS:
        return quantize(y, out_dtype)
    return y.to(out_dtype).contiguous(), y.new_empty(0)


def cost(
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
) -> Cost:
    """The product's multiply-adds, as rivals count them; the epilogue's few operations per element are not counted."""
    num_rows = x_scale.numel()
    num_outputs = num_rows * weight_scale.shape[0]
    out_bytes = num_outputs * out_dtype.itemsize + 4 * num_rows * (out_dtype in LIMITS)
    read = num_bytes(x, x_scale, weight, weight_scale, bias, residual, gate, index)
    return Cost(2 * num_outputs * x.shape[-1], read + out_bytes)
