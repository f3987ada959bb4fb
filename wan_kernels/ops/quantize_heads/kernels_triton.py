"""quantize_heads on the device. Imported when it is first run: the backend itself needs no Triton."""

import triton
import triton.language as tl

from wan_kernels.common.triton_heads_kernel import store_blocks


@triton.jit
def quantize_heads_sum_fwd_kernel(
    x,  # [B, L, N, H], any float; the last dim contiguous
    sums,  # [B, num_parts, N * H] float32, over the tokens of each part
    stride_sample,
    stride_token,
    stride_head,
    length,
    num_heads,
    head_width,
    PART: tl.constexpr,
    TOKENS: tl.constexpr,
    WIDTH: tl.constexpr,
):
    """A part of the tokens of one head per program, TOKENS at a time."""
    part, head, sample = tl.program_id(0), tl.program_id(1), tl.program_id(2).to(tl.int64)
    columns = tl.arange(0, WIDTH)
    x += sample * stride_sample + head.to(tl.int64) * stride_head
    total = tl.zeros((TOKENS, WIDTH), tl.float32)
    for start in tl.range(part * PART, min(part * PART + PART, length), TOKENS):
        tokens = start + tl.arange(0, TOKENS)
        inside = (tokens < length)[:, None] & (columns < head_width)[None, :]
        at = tokens.to(tl.int64)[:, None] * stride_token + columns[None, :]
        total += tl.load(x + at, mask=inside, other=0.0).to(tl.float32)
    sums += ((sample * tl.num_programs(0) + part) * num_heads + head) * head_width
    tl.store(sums + columns, tl.sum(total, axis=0), mask=columns < head_width)


@triton.jit
def quantize_heads_fwd_kernel(
    x,  # [B, L, N, H], any float; the last dim contiguous
    mean,  # [B, N, H] float32
    codes,  # [B, N, L, H], contiguous
    scales,  # [B, N, num_blocks] float32
    stride_sample,
    stride_token,
    stride_head,
    length,
    num_heads,
    head_width,
    tokens_per_scale,
    num_blocks,
    BLOCKS: tl.constexpr,
    BLOCK_TOKENS: tl.constexpr,
    WIDTH: tl.constexpr,
    LIMIT: tl.constexpr,
    IS_SMOOTH: tl.constexpr,
):
    """BLOCKS blocks of one head per program, each of tokens_per_scale rows in BLOCK_TOKENS."""
    head, sample = tl.program_id(1), tl.program_id(2).to(tl.int64)
    rows = tl.arange(0, BLOCKS * BLOCK_TOKENS)
    in_block = rows % BLOCK_TOKENS
    token = (tl.program_id(0) * BLOCKS + rows // BLOCK_TOKENS) * tokens_per_scale + in_block
    tokens, columns = token[:, None], tl.arange(0, WIDTH)[None, :]
    inside = ((in_block < tokens_per_scale) & (token < length))[:, None] & (columns < head_width)
    x += sample * stride_sample + head.to(tl.int64) * stride_head
    at = tokens.to(tl.int64) * stride_token + columns
    y = tl.load(x + at, mask=inside, other=0.0, eviction_policy="evict_first").to(tl.float32)
    of_head = sample * num_heads + head
    if IS_SMOOTH:
        y -= tl.load(mean + of_head * head_width + columns, mask=columns < head_width, other=0.0)
    codes += of_head * length * head_width
    scales += of_head * num_blocks
    store_blocks(codes, scales, y, tokens, columns, inside, head_width, num_blocks, LIMIT, BLOCKS, BLOCK_TOKENS)
