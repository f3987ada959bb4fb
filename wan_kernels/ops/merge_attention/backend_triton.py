"""merge_attention in Triton, forward and backward. Experimental until a hardware record shows that it passes: it runs
only when forced.
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
)
from wan_kernels.dispatch import register_backend

Inputs = tuple[Tensor, Tensor, Tensor, Tensor]
NAME = "merge_attention"
MODULE = "wan_kernels.ops.merge_attention.kernels_triton"
# 16 values a thread. 8 tokens of a head fill a sector of 32 bytes of the log-sum-exps.
TILE, MAX_TOKENS = 2048, 8
NUM_WARPS = 4
EXPECTS = Expectation(max_registers=64, min_ctas_per_sm=8)
BACKWARD_EXPECTS = Expectation(max_registers=96, min_ctas_per_sm=5, mnemonics=("SHFL",))


def prepare(out_a: Tensor, lse_a: Tensor, out_b: Tensor, lse_b: Tensor) -> tuple[tuple[Tensor, Tensor], list[Launch]]:
    """The outputs, and what fills them."""
    out = torch.empty(out_a.shape, dtype=out_a.dtype, device=out_a.device)
    lse = torch.empty(lse_a.shape, dtype=lse_a.dtype, device=lse_a.device)
    if lse.numel() == 0:
        return (out, lse), []
    args = {"out": out, "lse": lse} | input_args(out_a, lse_a, out_b, lse_b)
    return (out, lse), [launch_over("merge_attention_fwd_kernel", out_a, args, EXPECTS)]


def prepare_backward(
    grads: tuple[Tensor | None, Tensor | None],
    inputs: Inputs,
    outputs: tuple[Tensor, Tensor],
    needed: tuple[bool, ...],
) -> tuple[Gradients, list[Launch]]:
    """The gradients of all four, and what fills them."""
    grad_out, grad_lse = grads
    if inputs[1].numel() == 0:
        return (None,) * 4, []
    has_rows = grad_out is not None
    is_written = (needed[0] and has_rows, needed[1], needed[2] and has_rows, needed[3])
    found = grad_out_a, grad_lse_a, grad_out_b, grad_lse_b = tuple(map(gradient_like, inputs, is_written))
    grad_rows = None if grad_out is None else as_rows(grad_out)
    args = {
        "grad_out_a": grad_out_a,
        "grad_lse_a": grad_lse_a,
        "grad_out_b": grad_out_b,
        "grad_lse_b": grad_lse_b,
        "grad_out": grad_rows,
        "grad_lse": None if grad_lse is None else grad_lse.contiguous(),
        "grad_out_stride": 0 if grad_rows is None else grad_rows.stride(0),
    }
    args |= input_args(*inputs)
    return found, [launch_over("merge_attention_bwd_kernel", inputs[0], args, BACKWARD_EXPECTS)]


def input_args(out_a: Tensor, lse_a: Tensor, out_b: Tensor, lse_b: Tensor) -> dict[str, Any]:
    a_rows, b_rows = as_rows(out_a), as_rows(out_b)
    return {
        "out_a": a_rows,
        "lse_a": lse_a.contiguous(),
        "out_b": b_rows,
        "lse_b": lse_b.contiguous(),
        "out_a_stride": a_rows.stride(0),
        "out_b_stride": b_rows.stride(0),
    }


def launch_over(kernel: str, out_a: Tensor, args: dict[str, Any], expects: Expectation) -> Launch:
    """The kernel over every row of [B, L, N, H]."""
    num_samples, num_tokens, num_heads, width = out_a.shape
    num_columns = next_power_of_2(width)
    num_rows = TILE // num_columns
    tile_tokens = min(MAX_TOKENS, num_rows)
    tile_heads = num_rows // tile_tokens
    return Launch(
        module=MODULE,
        kernel=kernel,
        grid=(num_samples * -(-num_tokens // tile_tokens) * -(-num_heads // tile_heads),),
        args=args | {"num_tokens": num_tokens, "num_heads": num_heads, "width": width},
        constants={"TOKENS": tile_tokens, "HEADS": tile_heads, "COLUMNS": num_columns},
        expects=expects,
        num_warps=NUM_WARPS,
    )


def reject(out_a: Tensor, lse_a: Tensor, out_b: Tensor, lse_b: Tensor) -> str | None:
    if not 0 < out_a.shape[3] <= TILE:
        return f"keeps a head in registers: it takes widths from 1 to {TILE}, got {out_a.shape[3]}"
    return reject_tensors(out_a, lse_a, out_b, lse_b)


register_backend(
    NAME,
    "triton",
    forward=running(prepare),
    backward=running(prepare_backward),
    available=unavailable,
    reject=reject,
    unproven=lambda: records.unproven(NAME, "triton"),
)
