"""quantize_values on the device. Imported when it is first run: the backend itself needs no Triton."""

import triton
import triton.language as tl

from wan_kernels.common.triton_quantize_kernel import INFINITY, encode, magnitude_bits, scale_of


@triton.jit
def quantize_values_measure_fwd_kernel(
    v,  # [B, L, N, H], any float; the last dim contiguous
    parts,  # [num_parts, B * N * H] int32, largest magnitudes; IS_SMOOTH: [3, ...] float32, sums, least, largest values
    stride_sample,
    stride_token,
    stride_head,
    length,
    num_heads,
    head_width,
    num_parts,
    num_channels,
    PART: tl.constexpr,
    TOKENS: tl.constexpr,
    CHANNELS: tl.constexpr,
    IS_SMOOTH: tl.constexpr,
):
    """A part of the tokens of one head per program, TOKENS at a time."""
    part, head = tl.program_id(0), tl.program_id(1)
    channels = tl.program_id(2) * CHANNELS + tl.arange(0, CHANNELS)
    inside = channels < head_width
    v += (head // num_heads).to(tl.int64) * stride_sample + (head % num_heads).to(tl.int64) * stride_head
    sizes = tl.zeros((TOKENS, CHANNELS), tl.int32)
    sums = tl.zeros((TOKENS, CHANNELS), tl.float32)
    least = tl.full((TOKENS, CHANNELS), float("inf"), tl.float32)
    most = tl.full((TOKENS, CHANNELS), float("-inf"), tl.float32)
    for start in tl.range(part * PART, min(part * PART + PART, length), TOKENS):
        tokens = start + tl.arange(0, TOKENS)
        mask = (tokens < length)[:, None] & inside[None, :]
        at = tokens.to(tl.int64)[:, None] * stride_token + channels[None, :]
        y = tl.load(v + at, mask=mask, other=0.0).to(tl.float32)
        if IS_SMOOTH:
            sums += y
            least = tl.minimum(least, tl.where(mask, y, float("inf")))
            most = tl.maximum(most, tl.where(mask, y, float("-inf")))
        else:
            sizes = tl.maximum(sizes, magnitude_bits(y))
    parts += part * num_channels + head * head_width + channels
    if IS_SMOOTH:
        plane = num_parts * num_channels
        tl.store(parts, tl.sum(sums, axis=0), mask=inside)
        tl.store(parts + plane, tl.min(least, axis=0), mask=inside)
        tl.store(parts + 2 * plane, tl.max(most, axis=0), mask=inside)
    else:
        tl.store(parts, tl.max(sizes, axis=0), mask=inside)


@triton.jit
def quantize_values_finish_fwd_kernel(
    parts,  # as above
    scales,  # [num_channels] float32, as mean, or None where blocks of tokens have scales of their own
    mean,
    length,
    num_parts,
    num_channels,
    LIMIT: tl.constexpr,
    PARTS: tl.constexpr,
    CHANNELS: tl.constexpr,
    IS_SMOOTH: tl.constexpr,
):
    """Rounding keeps order, so the largest size of v - mean is that of v's least or of its largest value."""
    channels = tl.program_id(0) * CHANNELS + tl.arange(0, CHANNELS)
    inside = channels < num_channels
    size = tl.zeros((CHANNELS,), tl.int32)
    average = tl.zeros((CHANNELS,), tl.float32)
    least = tl.full((CHANNELS,), float("inf"), tl.float32)
    most = tl.full((CHANNELS,), float("-inf"), tl.float32)
    for start in tl.range(0, num_parts, PARTS):
        rows = start + tl.arange(0, PARTS)
        mask = (rows < num_parts)[:, None] & inside[None, :]
        at = rows[:, None] * num_channels + channels[None, :]
        if IS_SMOOTH:
            plane = num_parts * num_channels
            average += tl.sum(tl.load(parts + at, mask=mask, other=0.0), axis=0)
            lows = tl.load(parts + plane + at, mask=mask, other=float("inf"))
            highs = tl.load(parts + 2 * plane + at, mask=mask, other=float("-inf"))
            least = tl.minimum(least, tl.min(lows, axis=0))
            most = tl.maximum(most, tl.max(highs, axis=0))
        else:
            size = tl.maximum(size, tl.max(tl.load(parts + at, mask=mask, other=0), axis=0))
    if IS_SMOOTH:
        average = tl.div_rn(average, tl.zeros((CHANNELS,), tl.float32) + length)
        size = tl.maximum(magnitude_bits(least - average), magnitude_bits(most - average))
        tl.store(mean + channels, average, mask=inside)
    if scales is not None:
        scale, _, _ = scale_of(size, LIMIT)
        tl.store(scales + channels, scale, mask=inside)


@triton.jit
def load_tile(
    v, tokens, channels, length, head_width, stride_token, average, IS_SMOOTH: tl.constexpr, POLICY: tl.constexpr
):
    """v less its mean at tokens x channels, float32, zeros beyond either."""
    mask = (tokens < length)[:, None] & (channels < head_width)[None, :]
    at = tokens.to(tl.int64)[:, None] * stride_token + channels[None, :]
    y = tl.load(v + at, mask=mask, other=0.0, eviction_policy=POLICY).to(tl.float32)
    return tl.where(mask, y - average[None, :], 0.0) if IS_SMOOTH else y


@triton.jit
def quantize_values_fwd_kernel(
    v,  # [B, L, N, H], any float; the last dim contiguous
    scales,  # [B, N, num_blocks, H] float32: written if HAS_BLOCKS, else read
    mean,  # [B, N, H] float32
    codes,  # [B, N, H, num_positions], contiguous
    stride_sample,
    stride_token,
    stride_head,
    length,
    num_positions,
    num_heads,
    head_width,
    NUM_TILES: tl.constexpr,
    TOKENS: tl.constexpr,
    CHANNELS: tl.constexpr,
    LIMIT: tl.constexpr,
    HAS_BLOCKS: tl.constexpr,
    IS_SMOOTH: tl.constexpr,
    IS_PERMUTED: tl.constexpr,
):
    """NUM_TILES tiles of tokens of one head per program: read along channels, turned as codes, written along tokens.

    Tiles of a block are read a second time, from the cache.
    """
    block, head = tl.program_id(0), tl.program_id(1)
    channels = tl.program_id(2) * CHANNELS + tl.arange(0, CHANNELS)
    inside = channels < head_width
    v += (head // num_heads).to(tl.int64) * stride_sample + (head % num_heads).to(tl.int64) * stride_head
    row = head * head_width + channels
    average = tl.load(mean + row, mask=inside, other=0.0)
    first = block * NUM_TILES * TOKENS + tl.arange(0, TOKENS)
    if HAS_BLOCKS:
        sizes = tl.zeros((CHANNELS,), tl.int32)
        for tile in tl.range(NUM_TILES, num_stages=1):
            tokens = first + tile * TOKENS
            y = load_tile(v, tokens, channels, length, head_width, stride_token, average, IS_SMOOTH, "")
            sizes = tl.maximum(sizes, tl.max(magnitude_bits(y), axis=0))
        scale, inverse, is_finite = scale_of(sizes, LIMIT)
        tl.store(scales + (head * tl.num_programs(0) + block) * head_width + channels, scale, mask=inside)
    else:
        scale = tl.load(scales + row, mask=inside, other=1.0)
        is_finite = magnitude_bits(scale) < INFINITY
        inverse = tl.where(is_finite, tl.div_rn(tl.full((CHANNELS,), 1.0, tl.float32), scale), 0.0)
    for tile in tl.range(NUM_TILES, num_stages=1):
        positions = first + tile * TOKENS
        tokens = positions
        if IS_PERMUTED:
            tokens = (positions & -16) | ((positions & 2) << 2) | ((positions & 12) >> 1) | (positions & 1)
        y = load_tile(v, tokens, channels, length, head_width, stride_token, average, IS_SMOOTH, "evict_first")
        turned = tl.trans(encode(y, inverse[None, :], is_finite[None, :], codes.dtype.element_ty))
        at = row.to(tl.int64)[:, None] * num_positions + positions[None, :]
        tl.store(codes + at, turned, mask=inside[:, None] & (positions < num_positions)[None, :])
