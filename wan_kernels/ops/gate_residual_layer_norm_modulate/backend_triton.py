"""gate_residual_layer_norm_modulate in one Triton kernel, and its backward in another. Experimental until a hardware
record shows that it passes: it runs only when forced.

Statistics in float32: the variance about the computed mean, both from the row in registers. Gradients that are summed
over tokens are summed in float32 in a fixed order; with an index, tokens are sorted by their row first.
"""

from dataclasses import replace

import torch
from torch import Tensor

from wan_kernels import records
from wan_kernels.common.cpu import DTYPES
from wan_kernels.common.triton import (
    Expectation,
    Gradients,
    Launch,
    Outputs,
    as_rows,
    gradient_like,
    next_power_of_2,
    reject_tensors,
    running,
    unavailable,
    with_dense_rows,
)
from wan_kernels.common.triton_layer_norm import EXPECTS, norm_args
from wan_kernels.common.triton_rows import reject_width, row_warps, table_args
from wan_kernels.common.triton_sums import resident_programs, sum_launches, walk_of_tables
from wan_kernels.dispatch import register_backend

Inputs = tuple[
    Tensor,
    Tensor,
    Tensor | None,
    Tensor | None,
    Tensor | None,
    Tensor | None,
    Tensor | None,
    Tensor | None,
    float,
    torch.dtype | None,
]
NAME = "gate_residual_layer_norm_modulate"
MODULE = "wan_kernels.ops.gate_residual_layer_norm_modulate.kernels_triton"
# 8 values a thread and 16 to 8192; 16 warps on a multiprocessor. Meanwhile the next row is on its way to shared memory.
VALUES_PER_WARP, BACKWARD_REGISTERS = 256, 128
BACKWARD_EXPECTS = Expectation(max_registers=BACKWARD_REGISTERS, mnemonics=("SHFL", "LDGSTS"))
# With a gate and all four vectors of the norm, which no Wan has, 8 bytes spill, once.
FULL_EXPECTS = replace(BACKWARD_EXPECTS, is_hot=False)


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
        module=MODULE,
        kernel="gate_residual_layer_norm_modulate_fwd_kernel",
        grid=(rows.shape[0],),
        args=args,
        constants={"BLOCK": block},
        expects=EXPECTS,
        num_warps=row_warps(block),
    )
    return outputs, [launch]


def prepare_backward(
    grads: tuple[Tensor | None, Tensor | None], inputs: Inputs, outputs: Outputs, needed: tuple[bool, ...]
) -> tuple[Gradients, list[Launch]]:
    """The gradients of x, y, gate, scale, shift, weight and bias, and what fills them."""
    x, y, gate, scale, _, weight, bias, index, eps, _ = inputs
    if x.numel() == 0:
        return (None,) * 8, []
    grad_stream, grad_out = (None if grad is None else as_rows(grad) for grad in grads)
    # Without a gradient of the result, those of the norm's vectors are zeros, which nobody has to write.
    is_written = (*needed[:3], *(is_needed and grad_out is not None for is_needed in needed[3:7]))
    found = tuple(map(gradient_like, inputs[:7], is_written))
    grad_x, grad_y, *sums = found
    added = as_rows(y)
    width = x.shape[-1]
    block = next_power_of_2(width)
    num_warps = max(1, min(16, block // VALUES_PER_WARP))
    max_programs = resident_programs(x.device, num_warps, BACKWARD_REGISTERS)
    tokens = walk_of_tables(x, gate if scale is None else scale, index, max_programs)
    walks = tokens, tokens, tokens, tokens.over_all(), tokens.over_all()
    slots = [each.slots(width, x.device, out is not None) for each, out in zip(walks, sums, strict=True)]
    args = {
        "grad_stream": grad_stream,
        "grad_out": grad_out,
        "y": added,
        "stream": outputs[0],
        "weight": with_dense_rows(weight),
        "bias": with_dense_rows(bias),
        "grad_x": grad_x,
        "grad_y": grad_y,
        "gate_slots": slots[0],
        "scale_slots": slots[1],
        "shift_slots": slots[2],
        "weight_slots": slots[3],
        "bias_slots": slots[4],
        "grad_stream_stride": 0 if grad_stream is None else grad_stream.stride(0),
        "grad_out_stride": 0 if grad_out is None else grad_out.stride(0),
        "y_stride": added.stride(0),
        "num_modulations": next((table.shape[1] for table in (gate, scale) if table is not None), 1),
        "eps": eps,
    }
    is_full = gate is not None and scale is not None and weight is not None
    launch = Launch(
        module=MODULE,
        kernel="gate_residual_layer_norm_modulate_bwd_kernel",
        grid=(tokens.num_programs,),
        args=args | table_args("gate", gate) | table_args("scale", scale) | tokens.args(),
        constants={"WIDTH": width, "BLOCK": block, "STAGES": 2},
        expects=FULL_EXPECTS if is_full else BACKWARD_EXPECTS,
        num_warps=num_warps,
    )
    return (*found, None), [launch, *sum_launches(*zip(walks, slots, sums, strict=True))]


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
    backward=running(prepare_backward),
    available=unavailable,
    reject=reject,
    unproven=lambda: records.unproven(NAME, "triton"),
)
