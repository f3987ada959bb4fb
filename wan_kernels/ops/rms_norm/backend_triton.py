"""rms_norm in Triton, forward and backward. Experimental until a hardware record shows that it passes: it runs only
when forced.

The gradient of weight is summed in float32 over the rounded quotient, in a fixed order; that of x is rounded once.
"""

import torch
from torch import Tensor

from wan_kernels import records
from wan_kernels.common.triton import (
    Expectation,
    Gradients,
    Launch,
    as_rows,
    gradient_like,
    next_power_of_2,
    reject_tensors,
    running,
    unavailable,
    with_dense_rows,
)
from wan_kernels.common.triton_rows import backward_warps, reject_width, row_warps
from wan_kernels.common.triton_sums import resident_programs, sum_launches, walk
from wan_kernels.dispatch import register_backend

NAME = "rms_norm"
MODULE = "wan_kernels.ops.rms_norm.kernels_triton"
# Three programs of 8 warps on a multiprocessor, 5120 values in the registers of each.
EXPECTS = Expectation(max_registers=80, min_ctas_per_sm=3, mnemonics=("SHFL",))
# 16 warps on a multiprocessor; meanwhile the next row is on its way to shared memory.
BACKWARD_REGISTERS = 128
BACKWARD_EXPECTS = Expectation(max_registers=BACKWARD_REGISTERS, mnemonics=("SHFL", "LDGSTS"))


def prepare(x: Tensor, weight: Tensor, eps: float) -> tuple[Tensor, list[Launch]]:
    """The output, and what fills it."""
    out = torch.empty(x.shape, dtype=x.dtype, device=x.device)
    if out.numel() == 0:
        return out, []
    rows = as_rows(x)
    num_rows, width = rows.shape
    block = next_power_of_2(width)
    launch = Launch(
        module=MODULE,
        kernel="rms_norm_fwd_kernel",
        grid=(num_rows,),
        args={
            "x": rows,
            "weight": with_dense_rows(weight),
            "out": out,
            "x_stride": rows.stride(0),
            "width": width,
            "eps": eps,
        },
        constants={"BLOCK": block},
        expects=EXPECTS,
        num_warps=row_warps(block),
    )
    return out, [launch]


def prepare_backward(
    grads: tuple[Tensor], inputs: tuple[Tensor, Tensor, float], outputs: tuple[Tensor], needed: tuple[bool, bool]
) -> tuple[Gradients, list[Launch]]:
    """The gradients of x and weight, and what fills them."""
    x, weight, eps = inputs
    if x.numel() == 0:
        return (None, None), []
    rows, grad_rows = as_rows(x), as_rows(grads[0])
    num_rows, width = rows.shape
    block = next_power_of_2(width)
    num_warps = backward_warps(block)
    spans = walk(num_rows, resident_programs(x.device, num_warps, BACKWARD_REGISTERS))
    grad_x, grad_weight = gradient_like(x, needed[0]), gradient_like(weight, needed[1])
    slots = spans.slots(width, x.device, needed[1])
    launch = Launch(
        module=MODULE,
        kernel="rms_norm_bwd_kernel",
        grid=(spans.num_programs,),
        args={
            "grad_out": grad_rows,
            "x": rows,
            "weight": with_dense_rows(weight),
            "grad_x": grad_x,
            "weight_slots": slots,
            "grad_out_stride": grad_rows.stride(0),
            "x_stride": rows.stride(0),
            "num_rows": num_rows,
            "span": spans.span,
            "width": width,
            "eps": eps,
        },
        constants={"BLOCK": block, "STAGES": 2},
        expects=BACKWARD_EXPECTS,
        num_warps=num_warps,
    )
    return (grad_x, grad_weight), [launch, *sum_launches((spans, slots, grad_weight))]


def reject(x: Tensor, weight: Tensor, eps: float) -> str | None:
    return reject_width(x.shape[-1]) or reject_tensors(x, weight)


register_backend(
    NAME,
    "triton",
    forward=running(prepare),
    backward=running(prepare_backward),
    available=unavailable,
    reject=reject,
    unproven=lambda: records.unproven(NAME, "triton"),
)
