"""layer_norm_modulate_8bit in one Triton kernel. Experimental until a hardware record shows that it passes: it runs
only when forced.

Statistics in float32: the variance about the computed mean, both from the row in registers. Of two codes equally near
a value it may take the other one, as quantize_rows does.
"""

import torch
from torch import Tensor

from wan_kernels import records
from wan_kernels.common.quantize import LIMITS
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

NAME = "layer_norm_modulate_8bit"


def prepare(
    x: Tensor,
    scale: Tensor | None,
    shift: Tensor | None,
    weight: Tensor | None,
    bias: Tensor | None,
    index: Tensor | None,
    eps: float,
    dtype: torch.dtype,
) -> tuple[Outputs, list[Launch]]:
    """The outputs, and what fills them."""
    codes = torch.empty(x.shape, dtype=dtype, device=x.device)
    scales = torch.empty(x.shape[:-1], dtype=torch.float32, device=x.device)
    if scales.numel() == 0:
        return (codes, scales), []
    rows = as_rows(x)
    block = next_power_of_2(x.shape[-1])
    args = {
        "x": rows,
        "codes": codes,
        "scales": scales,
        "x_stride": rows.stride(0),
        **norm_args(x, weight, bias, index, eps, scale=scale, shift=shift),
    }
    launch = Launch(
        module="wan_kernels.ops.layer_norm_modulate_8bit.kernels_triton",
        kernel="layer_norm_modulate_8bit_fwd_kernel",
        grid=(rows.shape[0],),
        args=args,
        constants={"LIMIT": LIMITS[dtype], "BLOCK": block},
        expects=EXPECTS,
        num_warps=row_warps(block),
    )
    return (codes, scales), [launch]


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
    return reject_width(x.shape[-1]) or reject_tensors(x, scale, shift, weight, bias)


register_backend(
    NAME,
    "triton",
    forward=running(prepare),
    available=unavailable,
    reject=reject,
    unproven=lambda: records.unproven(NAME, "triton"),
)
