"""What the launches of kernels that write the codes of heads, a scale for each block of tokens, share."""

import torch
from torch import Tensor

from wan_kernels.common.triton import Expectation, Launch, next_power_of_2
from wan_kernels.common.triton_rows import MAX_BLOCK

PART = 128  # tokens: enough programs for every multiprocessor, and sums that are 3 % of what they are of
TILE_TOKENS = 32
MAX_TOKENS_PER_SCALE = 128
MAX_HEAD_WIDTH = MAX_BLOCK // MAX_TOKENS_PER_SCALE
LIMIT = 127.0
# 16 warps to a multiprocessor at least: two programs of 8, one of 16.
EXPECTS = Expectation(max_registers=128, min_ctas_per_sm=2, mnemonics=("SHFL",))
EXPECTS_WIDE = Expectation(max_registers=128, mnemonics=("SHFL",))
EXPECTS_MEAN = Expectation(max_registers=128, is_hot=False)


def empty_outputs(
    num_samples: int, num_heads: int, length: int, head_width: int, tokens_per_scale: int, is_smooth: bool, x: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Codes, scales and mean on x's device; a mean that no kernel writes is 0."""
    codes = torch.empty((num_samples, num_heads, length, head_width), dtype=torch.int8, device=x.device)
    scales_shape = num_samples, num_heads, -(-length // tokens_per_scale)
    scales = torch.empty(scales_shape, dtype=torch.float32, device=x.device)
    allocate = torch.empty if is_smooth else torch.zeros
    return codes, scales, allocate((num_samples, num_heads, head_width), dtype=torch.float32, device=x.device)


def mean_launch(sums: Tensor, mean: Tensor, length: int) -> Launch:
    """sums [B, num_parts, width] over parts of `length` tokens into mean [B, .., ..]."""
    num_samples, num_parts, width = sums.shape
    columns = 64
    return Launch(
        module="wan_kernels.common.triton_heads_kernel",
        kernel="mean_tokens_kernel",
        grid=(-(-width // columns), num_samples),
        args={"sums": sums, "mean": mean, "length": length, "num_parts": num_parts, "width": width},
        constants={"PARTS": 32, "COLUMNS": columns},
        expects=EXPECTS_MEAN,
    )


def block_tile(tokens_per_scale: int, head_width: int) -> dict[str, int]:
    """Blocks of a program, rows of each and their width: powers of two."""
    block_tokens = next_power_of_2(tokens_per_scale)
    blocks = max(TILE_TOKENS // block_tokens, 1)
    return {"BLOCKS": blocks, "BLOCK_TOKENS": block_tokens, "WIDTH": next_power_of_2(head_width)}


def block_warps(tokens_per_scale: int) -> tuple[int, Expectation]:
    """Warps of a program that keeps its blocks in registers, and what it is expected to compile to."""
    is_wide = next_power_of_2(tokens_per_scale) > 64
    return (16, EXPECTS_WIDE) if is_wide else (8, EXPECTS)


def reject_block(tokens_per_scale: int, head_width: int) -> str | None:
    """Why a block of one head cannot stay in registers, or None."""
    if tokens_per_scale <= MAX_TOKENS_PER_SCALE and head_width <= MAX_HEAD_WIDTH:
        return None
    return (
        f"keeps a block of one head in registers: it takes up to {MAX_TOKENS_PER_SCALE} tokens and heads of "
        f"{MAX_HEAD_WIDTH}, got {tokens_per_scale} and {head_width}"
    )
