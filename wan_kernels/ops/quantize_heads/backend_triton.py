"""quantize_heads in Triton. Experimental until a hardware record shows that it passes: it runs only when forced.

One kernel reads x once; a mean takes a pass before it. Of two codes equally near a value it may take the other one, as
quantize_rows does.
"""

from typing import Any

import torch
from torch import Tensor

from wan_kernels import records
from wan_kernels.common.triton import (
    Expectation,
    Launch,
    Outputs,
    next_power_of_2,
    reject_tensors,
    running,
    unavailable,
)
from wan_kernels.common.triton_heads import (
    EXPECTS,
    LIMIT,
    PART,
    block_tile,
    block_warps,
    empty_outputs,
    mean_launch,
    reject_block,
)
from wan_kernels.dispatch import register_backend

NAME = "quantize_heads"
KERNELS = "wan_kernels.ops.quantize_heads.kernels_triton"
# A scale for each token: the compiler takes 254 registers where blocks of 16 take 40, with 8 rows as with 32. Why is
# not understood; attention on a GPU reads blocks.
EXPECTS_SINGLE = Expectation(max_registers=255)


def prepare(x: Tensor, tokens_per_scale: int, is_smooth: bool) -> tuple[Outputs, list[Launch]]:
    """The outputs, and what fills them."""
    num_samples, length, num_heads, head_width = x.shape
    # The mean of no tokens is 0.
    is_smooth = is_smooth and length > 0
    outputs = empty_outputs(num_samples, num_heads, length, head_width, tokens_per_scale, is_smooth, x)
    if x.numel() == 0:
        return outputs, []
    x = x if x.stride(-1) == 1 or head_width == 1 else x.contiguous()
    launches = [encode_launch(x, outputs, tokens_per_scale, is_smooth)]
    if is_smooth:
        sums_shape = num_samples, -(-length // PART), num_heads * head_width
        sums = torch.empty(sums_shape, dtype=torch.float32, device=x.device)
        launches = [sum_launch(x, sums), mean_launch(sums, outputs[2], length), *launches]
    return outputs, launches


def view_of(x: Tensor) -> dict[str, Any]:
    """x and how to walk it, for kernels."""
    names = "stride_sample", "stride_token", "stride_head"
    sizes = {"length": x.shape[1], "num_heads": x.shape[2], "head_width": x.shape[3]}
    return {"x": x, **dict(zip(names, x.stride()[:3], strict=True)), **sizes}


def sum_launch(x: Tensor, sums: Tensor) -> Launch:
    return Launch(
        module=KERNELS,
        kernel="quantize_heads_sum_fwd_kernel",
        grid=(sums.shape[1], x.shape[2], x.shape[0]),
        args={**view_of(x), "sums": sums},
        constants={"PART": PART, "TOKENS": 32, "WIDTH": next_power_of_2(x.shape[3])},
        expects=EXPECTS,
    )


def encode_launch(x: Tensor, outputs: Outputs, tokens_per_scale: int, is_smooth: bool) -> Launch:
    codes, scales, mean = outputs
    num_samples, num_heads, num_blocks = scales.shape
    tile = block_tile(tokens_per_scale, codes.shape[3])
    num_warps, expects = block_warps(tokens_per_scale)
    if tokens_per_scale == 1:
        expects = EXPECTS_SINGLE
    args = {"mean": mean, "codes": codes, "scales": scales}
    return Launch(
        module=KERNELS,
        kernel="quantize_heads_fwd_kernel",
        grid=(-(-num_blocks // tile["BLOCKS"]), num_heads, num_samples),
        args={**view_of(x), **args, "tokens_per_scale": tokens_per_scale, "num_blocks": num_blocks},
        constants={**tile, "LIMIT": LIMIT, "IS_SMOOTH": is_smooth},
        expects=expects,
        num_warps=num_warps,
    )


def reject(x: Tensor, tokens_per_scale: int, is_smooth: bool) -> str | None:
    return reject_block(tokens_per_scale, x.shape[3]) or reject_tensors(x)


register_backend(
    NAME,
    "triton",
    forward=running(prepare),
    available=unavailable,
    reject=reject,
    unproven=lambda: records.unproven(NAME, "triton"),
)
