"""gate_residual in Triton, forward and backward. Experimental until a hardware record shows that it passes: it runs
only when forced.

The gradient of gate is summed over tokens in float32 in a fixed order; with an index, tokens are sorted by their row
first.
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
)
from wan_kernels.common.triton_rows import modulation_args, table_args
from wan_kernels.common.triton_sums import resident_programs, sum_launches, walk_of_tables
from wan_kernels.dispatch import register_backend

Inputs = tuple[Tensor, Tensor, Tensor, Tensor | None]
NAME = "gate_residual"
MODULE = "wan_kernels.ops.gate_residual.kernels_triton"
# 512 divides the widths of every Wan; 16 values a thread.
COLUMNS, TILE = 512, 2048
BACKWARD_COLUMNS = 1024
NUM_WARPS = 4
MAX_REGISTERS = 80
EXPECTS = Expectation(max_registers=MAX_REGISTERS, min_ctas_per_sm=6)


def prepare(x: Tensor, y: Tensor, gate: Tensor, index: Tensor | None) -> tuple[Tensor, list[Launch]]:
    """The output, and what fills it."""
    out = torch.empty(x.shape, dtype=x.dtype, device=x.device)
    if out.numel() == 0:
        return out, []
    x_rows, y_rows = as_rows(x), as_rows(y)
    num_rows, width = x_rows.shape
    num_columns = min(COLUMNS, next_power_of_2(width))
    num_tile_rows = TILE // num_columns
    args = {
        "x": x_rows,
        "y": y_rows,
        "out": out,
        "x_stride": x_rows.stride(0),
        "y_stride": y_rows.stride(0),
        "num_rows": num_rows,
        "num_tokens": x.shape[1],
        "width": width,
    }
    launch = Launch(
        module=MODULE,
        kernel="gate_residual_fwd_kernel",
        grid=(-(-num_rows // num_tile_rows) * -(-width // num_columns),),
        args=args | modulation_args(index, gate=gate),
        constants={"ROWS": num_tile_rows, "COLUMNS": num_columns},
        expects=EXPECTS,
        num_warps=NUM_WARPS,
    )
    return out, [launch]


def prepare_backward(
    grads: tuple[Tensor], inputs: Inputs, outputs: tuple[Tensor], needed: tuple[bool, ...]
) -> tuple[Gradients, list[Launch]]:
    """The gradients of x, y and gate, and what fills them."""
    x, y, gate, index = inputs
    if x.numel() == 0:
        return (None,) * 4, []
    found = grad_x, grad_y, grad_gate = tuple(map(gradient_like, (x, y, gate), needed))
    grad_rows, y_rows = as_rows(grads[0]), as_rows(y)
    width = x.shape[-1]
    num_columns = min(BACKWARD_COLUMNS, next_power_of_2(width))
    num_blocks = -(-width // num_columns)
    max_programs = resident_programs(x.device, NUM_WARPS, MAX_REGISTERS) // num_blocks
    tokens = walk_of_tables(x, gate, index, max_programs)
    slots = tokens.slots(width, x.device, needed[2])
    args = {
        "grad_out": grad_rows,
        "y": y_rows,
        "grad_x": grad_x,
        "grad_y": grad_y,
        "gate_slots": slots,
        "grad_out_stride": grad_rows.stride(0),
        "y_stride": y_rows.stride(0),
        "num_modulations": gate.shape[1],
        "width": width,
    }
    launch = Launch(
        module=MODULE,
        kernel="gate_residual_bwd_kernel",
        grid=(tokens.num_programs * num_blocks,),
        args=args | table_args("gate", gate) | tokens.args(),
        constants={"COLUMNS": num_columns, "STAGES": 4},
        expects=EXPECTS,
        num_warps=NUM_WARPS,
    )
    return (*found, None), [launch, *sum_launches((tokens, slots, grad_gate))]


def reject(x: Tensor, y: Tensor, gate: Tensor, index: Tensor | None) -> str | None:
    return reject_tensors(x, y, gate)


register_backend(
    NAME,
    "triton",
    forward=running(prepare),
    backward=running(prepare_backward),
    available=unavailable,
    reject=reject,
    unproven=lambda: records.unproven(NAME, "triton"),
)
