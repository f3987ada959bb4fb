"""gate_residual_layer_norm_modulate in one Triton kernel. Experimental until a hardware record shows that it
passes: it runs only when forced.

Statistics in float32: the variance about the computed mean, both from the row in registers. No backward.
"""

import torch
from torch import Tensor

from wan_kernels import records
from wan_kernels.common.cpu import DTYPES
from wan_kernels.common.triton import (
    Launch,
    Outputs,
    as_rows,
    next_power_of_2,
    reject_tensors,
    running,
    unavailable,
)
from wan_kernels.common.triton_layer_norm import EXPECTS, norm_args
from wan_kernels.common.triton_rows import reject_width, row_warps
from wan_kernels.dispatch import register_backend

NAME = "gate_residual_layer_norm_modulate"


def prepare(
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
) -> tuple[Outputs, list[Launch]]:
    """The outputs, and what fills them."""
    stream = torch.empty(x.shape, dtype=x.dtype, device=x.device)
    out = torch.empty(x.shape, dtype=out_dtype or x.dtype, device=x.device)
    outputs = stream, out
    rows, added = as_rows(x), as_rows(y)
    if rows.shape[0] == 0:
        return outputs, []
    block = next_power_of_2(x.shape[-1])
    args = {
        "x": rows,
        "y": added,
        "stream": stream,
        "out": out,
        "x_stride": rows.stride(0),
        "y_stride": added.stride(0),
        **norm_args(x, weight, bias, index, eps, gate=gate, scale=scale, shift=shift),
    }
    launch = Launch(
        module="wan_kernels.ops.gate_residual_layer_norm_modulate.kernels_triton",
        kernel="gate_residual_layer_norm_modulate_fwd_kernel",
        grid=(rows.shape[0],),
        args=args,
        constants={"BLOCK": block},
        expects=EXPECTS,
        num_warps=row_warps(block),
    )
    return outputs, [launch]


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
    return reject_width(x.shape[-1]) or reject_tensors(x, y, gate, scale, shift, weight, bias)


register_backend(
    NAME,
    "triton",
    forward=running(prepare),
    available=unavailable,
    reject=reject,
    unproven=lambda: records.unproven(NAME, "triton"),
)
