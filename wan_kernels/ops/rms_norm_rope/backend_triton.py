"""rms_norm_rope in Triton, forward and backward. Experimental until a hardware record shows that it passes: it runs
only when forced.

The gradient of weight is summed in float32 over the rounded quotient, in a fixed order; that of x is rounded once.
"""

from typing import Any

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
from wan_kernels.common.triton_rows import MAX_BLOCK, backward_warps, row_warps
from wan_kernels.common.triton_sums import resident_programs, sum_launches, walk
from wan_kernels.dispatch import register_backend

Inputs = tuple[Tensor, Tensor, Tensor, Tensor, Tensor, int, list[int], float]
NAME = "rms_norm_rope"
MODULE = "wan_kernels.ops.rms_norm_rope.kernels_triton"
# Three programs of 8 warps on a multiprocessor, 5120 values in the registers of each.
EXPECTS = Expectation(max_registers=80, min_ctas_per_sm=3, mnemonics=("SHFL",))
# 16 warps on a multiprocessor; meanwhile the next row is on its way to shared memory.
BACKWARD_REGISTERS = 128
BACKWARD_EXPECTS = Expectation(max_registers=BACKWARD_REGISTERS, mnemonics=("SHFL", "LDGSTS"))


def prepare(
    x: Tensor,
    weight: Tensor,
    freqs_t: Tensor,
    freqs_y: Tensor,
    freqs_x: Tensor,
    num_heads: int,
    grid: list[int],
    eps: float,
) -> tuple[Tensor, list[Launch]]:
    """The output, and what fills it."""
    out = torch.empty((*x.shape[:2], num_heads, x.shape[2] // num_heads), dtype=x.dtype, device=x.device)
    if out.numel() == 0:
        return out, []
    rows = as_rows(x)
    num_head_lanes, num_pair_lanes = tile_of(x, num_heads)
    launch = Launch(
        module=MODULE,
        kernel="rms_norm_rope_fwd_kernel",
        grid=(rows.shape[0],),
        args={"x": rows, "weight": with_dense_rows(weight), "out": out, "x_stride": rows.stride(0), "eps": eps}
        | turn_args(x, freqs_t, freqs_y, freqs_x, num_heads, grid),
        constants={"HEADS": num_head_lanes, "PAIRS": num_pair_lanes},
        expects=EXPECTS,
        num_warps=row_warps(2 * num_head_lanes * num_pair_lanes),
    )
    return out, [launch]


def prepare_backward(
    grads: tuple[Tensor], inputs: Inputs, outputs: tuple[Tensor], needed: tuple[bool, ...]
) -> tuple[Gradients, list[Launch]]:
    """The gradients of x and weight, and what fills them."""
    x, weight, freqs_t, freqs_y, freqs_x, num_heads, grid, eps = inputs
    if x.numel() == 0:
        return (None,) * 5, []
    rows, grad_rows = as_rows(x), as_rows(grads[0].flatten(2))
    num_rows, width = rows.shape
    num_head_lanes, num_pair_lanes = tile_of(x, num_heads)
    num_warps = backward_warps(2 * num_head_lanes * num_pair_lanes)
    spans = walk(num_rows, resident_programs(x.device, num_warps, BACKWARD_REGISTERS))
    grad_x, grad_weight = gradient_like(x, needed[0]), gradient_like(weight, needed[1])
    slots = spans.slots(width, x.device, needed[1])
    args = {
        "grad_out": grad_rows,
        "x": rows,
        "weight": with_dense_rows(weight),
        "grad_x": grad_x,
        "weight_slots": slots,
        "grad_out_stride": grad_rows.stride(0),
        "x_stride": rows.stride(0),
        "num_rows": num_rows,
        "span": spans.span,
        "eps": eps,
    }
    launch = Launch(
        module=MODULE,
        kernel="rms_norm_rope_bwd_kernel",
        grid=(spans.num_programs,),
        args=args | turn_args(x, freqs_t, freqs_y, freqs_x, num_heads, grid),
        constants={"HEADS": num_head_lanes, "PAIRS": num_pair_lanes, "STAGES": 2},
        expects=BACKWARD_EXPECTS,
        num_warps=num_warps,
    )
    return (grad_x, grad_weight, None, None, None), [launch, *sum_launches((spans, slots, grad_weight))]


def tile_of(x: Tensor, num_heads: int) -> tuple[int, int]:
    """Heads and pairs of a head in a program's tile: powers of two."""
    return next_power_of_2(num_heads), next_power_of_2(x.shape[2] // num_heads // 2)


def turn_args(
    x: Tensor, freqs_t: Tensor, freqs_y: Tensor, freqs_x: Tensor, num_heads: int, grid: list[int]
) -> dict[str, Any]:
    """Kernel arguments that say how heads lie in a row and how tokens are turned."""
    return {
        "freqs_t": freqs_t.contiguous(),
        "freqs_y": freqs_y.contiguous(),
        "freqs_x": freqs_x.contiguous(),
        "num_tokens": x.shape[1],
        "num_turned": grid[0] * grid[1] * grid[2],
        "num_y": grid[1],
        "num_x": grid[2],
        "num_pairs_t": freqs_t.shape[1],
        "num_pairs_y": freqs_y.shape[1],
        "num_pairs_x": freqs_x.shape[1],
        "num_heads": num_heads,
        "head_width": x.shape[2] // num_heads,
    }


def reject(
    x: Tensor,
    weight: Tensor,
    freqs_t: Tensor,
    freqs_y: Tensor,
    freqs_x: Tensor,
    num_heads: int,
    grid: list[int],
    eps: float,
) -> str | None:
    if not freqs_t.dtype == freqs_y.dtype == freqs_x.dtype == torch.float32:
        return "needs float32 tables"
    num_head_lanes, num_pair_lanes = tile_of(x, num_heads)
    if not 0 < 2 * num_head_lanes * num_pair_lanes <= MAX_BLOCK:
        return (
            f"keeps a row in registers: heads and head width, each rounded up to a power of two, must multiply to at "
            f"most {MAX_BLOCK}, got {num_heads} x {x.shape[2] // num_heads}"
        )
    return reject_tensors(x, weight, freqs_t, freqs_y, freqs_x)


register_backend(
    NAME,
    "triton",
    forward=running(prepare),
    backward=running(prepare_backward),
    available=unavailable,
    reject=reject,
    unproven=lambda: records.unproven(NAME, "triton"),
)
