"""quantize_values in Triton. Experimental until a hardware record shows that it passes: it runs only when forced.

Three kernels: what parts of the tokens sum up to and reach, then means and scales, then codes. v is read twice, since a
pass over all tokens must end before the first code. Scales of blocks of tokens need no such pass: their codes' kernel
finds them, and without a mean it is the only one. Of two codes equally near a value it may take the other one, as
quantize_rows does.
"""

import torch
from torch import Tensor

from wan_kernels import records
from wan_kernels.common.quantize import LIMITS, VALUES_TILE
from wan_kernels.common.triton import (
    Expectation,
    Launch,
    Outputs,
    next_power_of_2,
    reject_tensors,
    running,
    unavailable,
)
from wan_kernels.dispatch import register_backend
from wan_kernels.ops.quantize_values.reference import num_blocks, num_positions

NAME = "quantize_values"
KERNELS = "wan_kernels.ops.quantize_values.kernels_triton"
PART = 1024  # tokens: enough programs for every multiprocessor, and parts that are 1 % of v
MAX_CHANNELS = 128
# Four programs of 4 warps, two of 8: 16 warps to a multiprocessor with 16 bytes and more in flight each thread.
EXPECTS_MEASURE = Expectation(max_registers=128, min_ctas_per_sm=4)
EXPECTS_FINISH = Expectation(max_registers=128, is_hot=False)
EXPECTS = Expectation(max_registers=128, min_ctas_per_sm=2)


def prepare(
    v: Tensor, dtype: torch.dtype, tokens_per_scale: int | None, is_smooth: bool, is_permuted: bool
) -> tuple[Outputs, list[Launch]]:
    """The outputs, and what fills them."""
    num_samples, length, num_heads, head_width = v.shape
    codes = torch.empty((num_samples, num_heads, head_width, num_positions(length)), dtype=dtype, device=v.device)
    scales_shape = num_samples, num_heads, num_blocks(length, tokens_per_scale), head_width
    scales = torch.empty(scales_shape, dtype=torch.float32, device=v.device)
    # The mean of no tokens is 0.
    is_smooth = is_smooth and length > 0
    mean = (torch.empty if is_smooth else torch.zeros)(codes.shape[:3], dtype=torch.float32, device=v.device)
    outputs = codes, scales, mean
    if codes.numel() == 0:
        return outputs, []
    v = v if v.stride(-1) == 1 or head_width == 1 else v.contiguous()
    launches = [encode_launch(v, outputs, tokens_per_scale, is_smooth, is_permuted)]
    if is_smooth or tokens_per_scale is None:
        num_parts = -(-length // PART)
        parts_shape = (3, num_parts, mean.numel()) if is_smooth else (num_parts, mean.numel())
        parts = torch.empty(parts_shape, dtype=torch.float32 if is_smooth else torch.int32, device=v.device)
        whole_scales = scales if tokens_per_scale is None else None
        finish = finish_launch(parts, whole_scales, mean, length, num_parts, LIMITS[dtype], is_smooth)
        launches = [measure_launch(v, parts, num_parts, is_smooth), finish, *launches]
    return outputs, launches


def view_of(v: Tensor) -> dict[str, object]:
    """v and how to walk it, for kernels."""
    names = "stride_sample", "stride_token", "stride_head"
    sizes = {"length": v.shape[1], "num_heads": v.shape[2], "head_width": v.shape[3]}
    return {"v": v, **dict(zip(names, v.stride()[:3], strict=True)), **sizes}


def channel_grid(v: Tensor, num_blocks: int, channels: int) -> tuple[int, int, int]:
    """Blocks of tokens, heads of all samples, blocks of channels."""
    return num_blocks, v.shape[0] * v.shape[2], -(-v.shape[3] // channels)


def measure_launch(v: Tensor, parts: Tensor, num_parts: int, is_smooth: bool) -> Launch:
    channels = min(next_power_of_2(v.shape[3]), MAX_CHANNELS)
    return Launch(
        module=KERNELS,
        kernel="quantize_values_measure_fwd_kernel",
        grid=channel_grid(v, num_parts, channels),
        args={**view_of(v), "parts": parts, "num_parts": num_parts, "num_channels": parts.shape[-1]},
        constants={"PART": PART, "TOKENS": 32, "CHANNELS": channels, "IS_SMOOTH": is_smooth},
        expects=EXPECTS_MEASURE,
    )


def finish_launch(
    parts: Tensor, scales: Tensor | None, mean: Tensor, length: int, num_parts: int, limit: float, is_smooth: bool
) -> Launch:
    channels = 64
    return Launch(
        module=KERNELS,
        kernel="quantize_values_finish_fwd_kernel",
        grid=(-(-mean.numel() // channels),),
        args={
            "parts": parts,
            "scales": scales,
            "mean": mean,
            "length": length,
            "num_parts": num_parts,
            "num_channels": mean.numel(),
        },
        constants={"LIMIT": limit, "PARTS": 32, "CHANNELS": channels, "IS_SMOOTH": is_smooth},
        expects=EXPECTS_FINISH,
    )


def encode_launch(
    v: Tensor, outputs: Outputs, tokens_per_scale: int | None, is_smooth: bool, is_permuted: bool
) -> Launch:
    """A tile per program, or a block of them."""
    codes, scales, mean = outputs
    per_program = tokens_per_scale or VALUES_TILE
    # Walking over tiles takes registers: 190 a thread with whole ones, 128 with halves.
    tokens = VALUES_TILE if per_program == VALUES_TILE else VALUES_TILE // 2
    channels = min(next_power_of_2(v.shape[3]), MAX_CHANNELS)
    return Launch(
        module=KERNELS,
        kernel="quantize_values_fwd_kernel",
        grid=channel_grid(v, -(-codes.shape[3] // per_program), channels),
        args={**view_of(v), "scales": scales, "mean": mean, "codes": codes, "num_positions": codes.shape[3]},
        constants={
            "NUM_TILES": per_program // tokens,
            "TOKENS": tokens,
            "CHANNELS": channels,
            "LIMIT": LIMITS[codes.dtype],
            "HAS_BLOCKS": tokens_per_scale is not None,
            "IS_SMOOTH": is_smooth,
            "IS_PERMUTED": is_permuted,
        },
        expects=EXPECTS,
        num_warps=8,
    )


def reject(
    v: Tensor, dtype: torch.dtype, tokens_per_scale: int | None, is_smooth: bool, is_permuted: bool
) -> str | None:
    return reject_tensors(v)


register_backend(
    NAME,
    "triton",
    forward=running(prepare),
    available=unavailable,
    reject=reject,
    unproven=lambda: records.unproven(NAME, "triton"),
)
