"""rms_norm_rope_8bit on the device. Imported when it is first run: the backend itself needs no Triton.

Tiles are [rows, WIDTH], a row being one head of one token. A token's turns come from the three tables as they lie,
(cos, sin) of each pair side by side, so that splitting a tile into pairs splits them too.
"""

import triton
import triton.language as tl

from wan_kernels.common.triton_heads_kernel import store_blocks
from wan_kernels.common.triton_quantize_kernel import encode, magnitude_bits, scale_of
from wan_kernels.common.triton_rows_kernel import reciprocal_root


@triton.jit
def reciprocal_rms(squares, width, eps):
    """1 / sqrt(mean + eps) of a tile of squares that is one token."""
    mean = tl.sum(tl.sum(squares, axis=1), axis=0) / width
    return reciprocal_root(mean + eps)


@triton.jit
def load_turns(tokens, is_turned, columns, freqs_t, freqs_y, freqs_x, rows_y, rows_x, floats_t, floats_y, head_width):
    """(cos, sin, cos, sin, ...) of tokens [R, 1] at columns [1, WIDTH]; zeros where nothing turns."""
    at_t = tokens // (rows_y * rows_x) * floats_t + columns
    at_y = tokens // rows_x % rows_y * floats_y + columns - floats_t
    start_x = floats_t + floats_y
    at_x = tokens % rows_x * (head_width - start_x) + columns - start_x
    in_t = columns < floats_t
    in_y = (columns >= floats_t) & (columns < start_x)
    in_x = (columns >= start_x) & (columns < head_width)
    turns = tl.load(freqs_t + at_t, mask=is_turned & in_t, other=0.0)
    turns += tl.load(freqs_y + at_y, mask=is_turned & in_y, other=0.0)
    return turns + tl.load(freqs_x + at_x, mask=is_turned & in_x, other=0.0)


@triton.jit
def rotate(y, turns, is_turned, ROWS: tl.constexpr, TURN_ROWS: tl.constexpr, WIDTH: tl.constexpr):
    """y [ROWS, WIDTH] turned by [TURN_ROWS, WIDTH], a row each or one for all."""
    even, odd = tl.split(tl.reshape(y, (ROWS, WIDTH // 2, 2)))
    cosines, sines = tl.split(tl.reshape(turns, (TURN_ROWS, WIDTH // 2, 2)))
    turned_even = tl.where(is_turned, even * cosines - odd * sines, even)
    turned_odd = tl.where(is_turned, odd * cosines + even * sines, odd)
    return tl.reshape(tl.join(turned_even, turned_odd), (ROWS, WIDTH))


@triton.jit
def rms_norm_rope_8bit_fwd_kernel(
    x,  # [B * length, num_heads * head_width], any float, as weight; the last dim contiguous
    weight,  # [num_heads * head_width], contiguous
    freqs_t,  # [positions, floats] float32, contiguous, as freqs_y and freqs_x
    freqs_y,
    freqs_x,
    codes,  # [B, num_heads, length, head_width], contiguous
    scales,  # [B, num_heads, length] float32
    x_stride,
    length,
    num_heads,
    head_width,
    num_turned,
    rows_y,
    rows_x,
    floats_t,
    floats_y,
    eps,
    GROUPS: tl.constexpr,
    HEADS: tl.constexpr,
    WIDTH: tl.constexpr,
    LIMIT: tl.constexpr,
):
    """A token per program, HEADS heads at a time: from memory for its rms, from the first cache for its codes.

    A scale per token and head, no mean.
    """
    row = tl.program_id(0)
    sample, token = (row // length).to(tl.int64), row % length
    x += row.to(tl.int64) * x_stride
    columns = tl.arange(0, WIDTH)[None, :]
    squares = tl.zeros((HEADS, WIDTH), tl.float32)
    for group in tl.static_range(GROUPS):
        heads = group * HEADS + tl.arange(0, HEADS)[:, None]
        inside = (heads < num_heads) & (columns < head_width)
        y = tl.load(x + heads * head_width + columns, mask=inside, other=0.0).to(tl.float32)
        squares += y * y
    factor = reciprocal_rms(squares, num_heads * head_width, eps)
    tokens = tl.zeros((1, 1), tl.int32) + token
    is_turned = tokens < num_turned
    turns = load_turns(
        tokens, is_turned, columns, freqs_t, freqs_y, freqs_x, rows_y, rows_x, floats_t, floats_y, head_width
    )
    for group in range(GROUPS):
        head = group * HEADS + tl.arange(0, HEADS)
        inside = (head < num_heads)[:, None] & (columns < head_width)
        at = head[:, None] * head_width + columns
        y = tl.load(x + at, mask=inside, other=0.0).to(tl.float32) * factor
        y *= tl.load(weight + at, mask=inside, other=0.0).to(tl.float32)
        y = rotate(y, turns, is_turned, HEADS, 1, WIDTH)
        # Beyond the width a row that is not finite holds NaN times zero.
        largest = tl.max(tl.where(inside, magnitude_bits(y), 0), axis=1)
        scale, inverse, is_finite = scale_of(largest, LIMIT)
        at = (sample * num_heads + head) * length + token
        quantised = encode(y, inverse[:, None], is_finite[:, None], codes.dtype.element_ty)
        tl.store(codes + at[:, None] * head_width + columns, quantised, mask=inside)
        tl.store(scales + at, scale, mask=head < num_heads)


@triton.jit
def rms_norm_rope_8bit_measure_fwd_kernel(
    x,  # as above, to freqs_x
    weight,
    freqs_t,
    freqs_y,
    freqs_x,
    factors,  # [B * length] float32: 1 / rms of each token
    sums,  # [B, num_parts, num_heads * head_width] float32: sums over the tokens of each part, if IS_SMOOTH
    x_stride,
    length,
    num_heads,
    head_width,
    num_turned,
    rows_y,
    rows_x,
    floats_t,
    floats_y,
    eps,
    PART: tl.constexpr,
    HEADS: tl.constexpr,
    WIDTH: tl.constexpr,
    IS_SMOOTH: tl.constexpr,
):
    """A part of a sample's tokens per program, one after the other, the next on its way during the work on each."""
    part, sample = tl.program_id(0), tl.program_id(1).to(tl.int64)
    heads, columns = tl.arange(0, HEADS)[:, None], tl.arange(0, WIDTH)[None, :]
    inside = (heads < num_heads) & (columns < head_width)
    at = heads * head_width + columns
    width = num_heads * head_width
    total = tl.zeros((HEADS, WIDTH), tl.float32)
    end = min(part * PART + PART, length)
    x += (sample * length + part * PART) * x_stride
    factors += sample * length
    ahead = tl.load(x + at, mask=inside, other=0.0)
    for token in tl.range(part * PART, end):
        y = ahead.to(tl.float32)
        x += x_stride
        ahead = tl.load(x + at, mask=inside & (token + 1 < end), other=0.0)
        factor = reciprocal_rms(y * y, width, eps)
        tl.store(factors + token, factor)
        if IS_SMOOTH:
            y = y * factor * tl.load(weight + at, mask=inside, other=0.0).to(tl.float32)
            tokens = tl.zeros((1, 1), tl.int32) + token
            is_turned = tokens < num_turned
            turns = load_turns(
                tokens, is_turned, columns, freqs_t, freqs_y, freqs_x, rows_y, rows_x, floats_t, floats_y, head_width
            )
            total += rotate(y, turns, is_turned, HEADS, 1, WIDTH)
    if IS_SMOOTH:
        tl.store(sums + (sample * tl.num_programs(0) + part) * width + at, total, mask=inside)


@triton.jit
def rms_norm_rope_8bit_encode_fwd_kernel(
    x,  # as above, to freqs_x
    weight,
    freqs_t,
    freqs_y,
    freqs_x,
    factors,  # [B * length] float32
    mean,  # [B, num_heads, head_width] float32
    codes,  # [B, num_heads, length, head_width], contiguous
    scales,  # [B, num_heads, num_blocks] float32
    x_stride,
    length,
    num_heads,
    head_width,
    num_turned,
    rows_y,
    rows_x,
    floats_t,
    floats_y,
    tokens_per_scale,
    num_blocks,
    BLOCKS: tl.constexpr,
    BLOCK_TOKENS: tl.constexpr,
    WIDTH: tl.constexpr,
    LIMIT: tl.constexpr,
    IS_SMOOTH: tl.constexpr,
):
    """BLOCKS blocks of one head per program, each of tokens_per_scale rows in BLOCK_TOKENS."""
    ROWS: tl.constexpr = BLOCKS * BLOCK_TOKENS
    head, sample = tl.program_id(1), tl.program_id(2).to(tl.int64)
    rows = tl.arange(0, ROWS)
    in_block = rows % BLOCK_TOKENS
    token = (tl.program_id(0) * BLOCKS + rows // BLOCK_TOKENS) * tokens_per_scale + in_block
    is_token = (in_block < tokens_per_scale) & (token < length)
    tokens, columns = token[:, None], tl.arange(0, WIDTH)[None, :]
    in_head = columns < head_width
    inside = is_token[:, None] & in_head
    at = (sample * length + tokens) * x_stride + head * head_width + columns
    y = tl.load(x + at, mask=inside, other=0.0, eviction_policy="evict_first").to(tl.float32)
    y *= tl.load(factors + sample * length + tokens, mask=is_token[:, None], other=0.0)
    y *= tl.load(weight + head * head_width + columns, mask=in_head, other=0.0).to(tl.float32)
    is_turned = tokens < num_turned
    turns = load_turns(
        tokens, is_turned, columns, freqs_t, freqs_y, freqs_x, rows_y, rows_x, floats_t, floats_y, head_width
    )
    y = rotate(y, turns, is_turned, ROWS, ROWS, WIDTH)
    head = sample * num_heads + head
    if IS_SMOOTH:
        y -= tl.load(mean + head * head_width + columns, mask=in_head, other=0.0)
    codes += head * length * head_width
    scales += head * num_blocks
    store_blocks(codes, scales, y, tokens, columns, inside, head_width, num_blocks, LIMIT, BLOCKS, BLOCK_TOKENS)
