"""What kernels that write the codes of heads, a scale for each block of tokens, share on the device."""

import triton
import triton.language as tl

from wan_kernels.common.triton_quantize_kernel import encode, magnitude_bits, scale_of


@triton.jit
def store_blocks(
    codes,  # [L, head_width] of one head, contiguous
    scales,  # [num_blocks] of that head
    y,  # [BLOCKS * BLOCK_TOKENS, WIDTH] float32: blocks of tokens, BLOCK_TOKENS rows to each
    tokens,  # [BLOCKS * BLOCK_TOKENS, 1], that of each row
    columns,  # [1, WIDTH]
    inside,  # which elements there are
    head_width,
    num_blocks,
    LIMIT: tl.constexpr,
    BLOCKS: tl.constexpr,
    BLOCK_TOKENS: tl.constexpr,
):
    """Codes and scales of the blocks that this program's first axis counts."""
    sizes = tl.max(tl.where(inside, magnitude_bits(y), 0), axis=1)
    largest = tl.max(tl.reshape(sizes, (BLOCKS, BLOCK_TOKENS)), axis=1)
    scale, inverse, _ = scale_of(largest, LIMIT)
    # 1 / scale of what is finite is never 0.
    inverse = tl.reshape(tl.broadcast_to(inverse[:, None], (BLOCKS, BLOCK_TOKENS)), (BLOCKS * BLOCK_TOKENS, 1))
    quantised = encode(y, inverse, inverse > 0.0, codes.dtype.element_ty)
    tl.store(codes + tokens * head_width + columns, quantised, mask=inside)
    block = tl.program_id(0) * BLOCKS + tl.arange(0, BLOCKS)
    tl.store(scales + block, scale, mask=block < num_blocks)


@triton.jit
def mean_tokens_kernel(
    sums,  # [B, num_parts, width] float32
    mean,  # [B, width] float32
    length,
    num_parts,
    width,
    PARTS: tl.constexpr,
    COLUMNS: tl.constexpr,
):
    """Parts are summed in an order that their number fixes."""
    sample = tl.program_id(1)
    columns = tl.program_id(0) * COLUMNS + tl.arange(0, COLUMNS)
    total = tl.zeros((COLUMNS,), tl.float32)
    for start in tl.range(0, num_parts, PARTS):
        parts = start + tl.arange(0, PARTS)
        mask = (parts < num_parts)[:, None] & (columns < width)[None, :]
        at = (sample * num_parts + parts)[:, None] * width + columns[None, :]
        total += tl.sum(tl.load(sums + at, mask=mask, other=0.0), axis=0)
    average = tl.div_rn(total, tl.zeros((COLUMNS,), tl.float32) + length)
    tl.store(mean + sample * width + columns, average, mask=columns < width)
