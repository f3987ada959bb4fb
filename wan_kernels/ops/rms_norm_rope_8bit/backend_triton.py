"""rms_norm_rope_8bit in Triton. Experimental until a hardware record shows that it passes: it runs only when forced.

With a scale for each token and no mean, one kernel reads x from memory once. Otherwise a first pass finds each
token's rms and sums the rotated rows, and a second, that reads x again, writes codes a block of tokens and a head at a
time. Of two codes equally near a value it may take the other one, as quantize_rows does.
"""

from typing import Any

import torch
from torch import Tensor

from wan_kernels import records
from wan_kernels.common.triton import (
    Expectation,
    Launch,
    Outputs,
    as_rows,
    next_power_of_2,
    reject_tensors,
    running,
    unavailable,
    with_dense_rows,
)
from wan_kernels.common.triton_heads import (
    EXPECTS,
    EXPECTS_WIDE,
    LIMIT,
    PART,
    block_tile,
    block_warps,
    empty_outputs,
    mean_launch,
    reject_block,
)
from wan_kernels.common.triton_rows import MAX_BLOCK, row_warps
from wan_kernels.dispatch import register_backend

NAME = "rms_norm_rope_8bit"
KERNELS = "wan_kernels.ops.rms_norm_rope_8bit.kernels_triton"
GROUP_HEADS = 8
# 16 warps to a multiprocessor.
EXPECTS_ROW = Expectation(max_registers=128, min_ctas_per_sm=4, mnemonics=("SHFL",))


def prepare(
    x: Tensor,
    weight: Tensor,
    freqs_t: Tensor,
    freqs_y: Tensor,
    freqs_x: Tensor,
    num_heads: int,
    grid: list[int],
    eps: float,
    tokens_per_scale: int,
    is_smooth: bool,
) -> tuple[Outputs, list[Launch]]:
    """The outputs, and what fills them."""
    num_samples, length, width = x.shape
    shape = num_samples, num_heads, length, width // num_heads
    # The mean of no tokens is 0.
    is_smooth = is_smooth and length > 0
    outputs = empty_outputs(*shape, tokens_per_scale, is_smooth, x)
    codes, scales, mean = outputs
    if codes.numel() == 0:
        return outputs, []
    inputs = kernel_inputs(x, weight, (freqs_t, freqs_y, freqs_x), shape, grid)
    if tokens_per_scale == 1 and not is_smooth:
        return outputs, [row_launch(inputs, codes, scales, eps)]
    factors = torch.empty(num_samples * length, dtype=torch.float32, device=x.device)
    num_parts = -(-length // PART)
    sums_shape = (num_samples, num_parts, width) if is_smooth else (0,)
    sums = torch.empty(sums_shape, dtype=torch.float32, device=x.device)
    launches = [measure_launch(inputs, factors, sums, shape, eps, is_smooth)]
    if is_smooth:
        launches.append(mean_launch(sums, mean, length))
    launches.append(encode_launch(inputs, factors, outputs, tokens_per_scale, is_smooth))
    return outputs, launches


def kernel_inputs(
    x: Tensor, weight: Tensor, freqs: tuple[Tensor, ...], shape: tuple[int, int, int, int], grid: list[int]
) -> dict[str, Any]:
    """What every kernel but that of the mean reads; shape is that of the codes."""
    rows = as_rows(x)
    return {
        "x": rows,
        "weight": with_dense_rows(weight),
        **{name: table.contiguous() for name, table in zip(("freqs_t", "freqs_y", "freqs_x"), freqs, strict=True)},
        "x_stride": rows.stride(0),
        "length": shape[2],
        "num_heads": shape[1],
        "head_width": shape[3],
        "num_turned": grid[0] * grid[1] * grid[2],
        # Divisors, even where no token turns.
        "rows_y": max(grid[1], 1),
        "rows_x": max(grid[2], 1),
        "floats_t": 2 * freqs[0].shape[1],
        "floats_y": 2 * freqs[1].shape[1],
    }


def row_launch(inputs: dict[str, Any], codes: Tensor, scales: Tensor, eps: float) -> Launch:
    num_samples, num_heads, length, head_width = codes.shape
    groups, width = -(-num_heads // GROUP_HEADS), next_power_of_2(head_width)
    return Launch(
        module=KERNELS,
        kernel="rms_norm_rope_8bit_fwd_kernel",
        grid=(num_samples * length,),
        args={**inputs, "codes": codes, "scales": scales, "eps": eps},
        constants={"GROUPS": groups, "HEADS": GROUP_HEADS, "WIDTH": width, "LIMIT": LIMIT},
        expects=EXPECTS_ROW,
    )


def measure_launch(
    inputs: dict[str, Any],
    factors: Tensor,
    sums: Tensor,
    shape: tuple[int, int, int, int],
    eps: float,
    is_smooth: bool,
) -> Launch:
    heads, width = next_power_of_2(shape[1]), next_power_of_2(shape[3])
    # The sums of a row stay in registers: 16 values a thread at most.
    is_wide = is_smooth and heads * width > 4096
    return Launch(
        module=KERNELS,
        kernel="rms_norm_rope_8bit_measure_fwd_kernel",
        grid=(-(-shape[2] // PART), shape[0]),
        args={**inputs, "factors": factors, "sums": sums, "eps": eps},
        constants={"PART": PART, "HEADS": heads, "WIDTH": width, "IS_SMOOTH": is_smooth},
        expects=EXPECTS_WIDE if is_wide else EXPECTS,
        num_warps=16 if is_wide else row_warps(heads * width),
    )


def encode_launch(
    inputs: dict[str, Any], factors: Tensor, outputs: Outputs, tokens_per_scale: int, is_smooth: bool
) -> Launch:
    codes, scales, mean = outputs
    num_samples, num_heads, num_blocks = scales.shape
    tile = block_tile(tokens_per_scale, codes.shape[3])
    num_warps, expects = block_warps(tokens_per_scale)
    args = {"factors": factors, "mean": mean, "codes": codes, "scales": scales}
    return Launch(
        module=KERNELS,
        kernel="rms_norm_rope_8bit_encode_fwd_kernel",
        grid=(-(-num_blocks // tile["BLOCKS"]), num_heads, num_samples),
        args={**inputs, **args, "tokens_per_scale": tokens_per_scale, "num_blocks": num_blocks},
        constants={**tile, "LIMIT": LIMIT, "IS_SMOOTH": is_smooth},
        expects=expects,
        num_warps=num_warps,
    )


def reject(
    x: Tensor,
    weight: Tensor,
    freqs_t: Tensor,
    freqs_y: Tensor,
    freqs_x: Tensor,
    num_heads: int,
    grid: list[int],
    eps: float,
    tokens_per_scale: int,
    is_smooth: bool,
) -> str | None:
    head_width = x.shape[2] // num_heads
    if next_power_of_2(num_heads) * next_power_of_2(head_width) > MAX_BLOCK:
        return f"keeps a row in registers: it takes up to {MAX_BLOCK} values, got {x.shape[2]}"
    if (reason := reject_block(tokens_per_scale, head_width)) is not None:
        return reason
    if not freqs_t.dtype == freqs_y.dtype == freqs_x.dtype == torch.float32:
        return "needs float32 tables"
    return reject_tensors(x, weight, freqs_t, freqs_y, freqs_x)


register_backend(
    NAME,
    "triton",
    forward=running(prepare),
    available=unavailable,
    reject=reject,
    unproven=lambda: records.unproven(NAME, "triton"),
)
