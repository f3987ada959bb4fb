"""layer_norm_modulate in Triton, forward and backward. Experimental until a hardware record shows that it passes: it
runs only when forced.

Statistics in float32: the variance about the computed mean, both from the row in registers. Gradients that are summed
over tokens are summed in float32 in a fixed order; with an index, tokens are sorted by their row first.
"""

import torch
from torch import Tensor

from wan_kernels import records
from wan_kernels.common.triton import (
    DTYPES,
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
from wan_kernels.common.triton_layer_norm import EXPECTS as FULL_EXPECTS
from wan_kernels.common.triton_layer_norm import norm_args
from wan_kernels.common.triton_rows import backward_warps, reject_width, row_warps, table_args
from wan_kernels.common.triton_sums import resident_programs, sum_launches, walk_of_tables
from wan_kernels.dispatch import register_backend

Inputs = tuple[
    Tensor, Tensor | None, Tensor | None, Tensor | None, Tensor | None, Tensor | None, float, torch.dtype | None
]
NAME = "layer_norm_modulate"
MODULE = "wan_kernels.ops.layer_norm_modulate.kernels_triton"
# Three programs of 8 warps on a multiprocessor, 5120 values in the registers of each; two with all four vectors.
EXPECTS = Expectation(max_registers=80, min_ctas_per_sm=3, mnemonics=("SHFL",))
# 16 warps on a multiprocessor; meanwhile the next row is on its way to shared memory.
BACKWARD_REGISTERS = 128
BACKWARD_EXPECTS = Expectation(max_registers=BACKWARD_REGISTERS, mnemonics=("SHFL", "LDGSTS"))


def prepare(
    x: Tensor,
    scale: Tensor | None,
    shift: Tensor | None,
    weight: Tensor | None,
    bias: Tensor | None,
    index: Tensor | None,
    eps: float,
    out_dtype: torch.dtype | None,
) -> tuple[Tensor, list[Launch]]:
    """The output, and what fills it."""
    out = torch.empty(x.shape, dtype=out_dtype or x.dtype, device=x.device)
    if out.numel() == 0:
        return out, []
    rows = as_rows(x)
    width = x.shape[-1]
    block = next_power_of_2(width)
    args = {"x": rows, "out": out, "x_stride": rows.stride(0)}
    launch = Launch(
        module=MODULE,
        kernel="layer_norm_modulate_fwd_kernel",
        grid=(rows.shape[0],),
        args=args | norm_args(x, weight, bias, index, eps, scale=scale, shift=shift),
        constants={"BLOCK": block},
        expects=EXPECTS if weight is None or scale is None else FULL_EXPECTS,
        num_warps=row_warps(block),
    )
    return out, [launch]


def prepare_backward(
    grads: tuple[Tensor], inputs: Inputs, outputs: tuple[Tensor], needed: tuple[bool, ...]
) -> tuple[Gradients, list[Launch]]:
    """The gradients of x, scale, shift, weight and bias, and what fills them."""
    x, scale, _, weight, bias, index, eps, _ = inputs
    if x.numel() == 0:
        return (None,) * 6, []
    found = tuple(map(gradient_like, inputs[:5], needed))
    grad_x, *sums = found
    rows, grad_rows = as_rows(x), as_rows(grads[0])
    width = x.shape[-1]
    block = next_power_of_2(width)
    num_warps = backward_warps(block)
    max_programs = resident_programs(x.device, num_warps, BACKWARD_REGISTERS)
    tokens = walk_of_tables(x, scale, index, max_programs)
    walks = tokens, tokens, tokens.over_all(), tokens.over_all()
    slots = [each.slots(width, x.device, out is not None) for each, out in zip(walks, sums, strict=True)]
    args = {
        "grad_out": grad_rows,
        "x": rows,
        "weight": with_dense_rows(weight),
        "bias": with_dense_rows(bias),
        "grad_x": grad_x,
        "scale_slots": slots[0],
        "shift_slots": slots[1],
        "weight_slots": slots[2],
        "bias_slots": slots[3],
        "grad_out_stride": grad_rows.stride(0),
        "x_stride": rows.stride(0),
        "num_modulations": 1 if scale is None else scale.shape[1],
        "width": width,
        "eps": eps,
    }
    launch = Launch(
        module=MODULE,
        kernel="layer_norm_modulate_bwd_kernel",
        grid=(tokens.num_programs,),
        args=args | table_args("scale", scale) | tokens.args(),
        constants={"BLOCK": block, "STAGES": 2},
        expects=BACKWARD_EXPECTS,
        num_warps=num_warps,
    )
    return (*found, None), [launch, *sum_launches(*zip(walks, slots, sums, strict=True))]


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
    return reject_width(x.shape[-1]) or reject_tensors(x, scale, shift, weight, bias)


register_backend(
    NAME,
    "triton",
    forward=running(prepare),
    backward=running(prepare_backward),
    available=unavailable,
    reject=reject,
    unproven=lambda: records.unproven(NAME, "triton"),
)
