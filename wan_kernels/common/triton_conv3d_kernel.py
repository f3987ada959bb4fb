"""Causal convolution on the device, as a product: rows are the pixels of an output frame, columns output channels, and
the sum runs over taps and, within a tap, over input channels.

Nothing is made of x: a step reads PIXELS rows of CHANNELS channels where they lie, in x or in the history, zeros where
the window hangs over the border. What a step needs to know beyond that is worked out once: a start for each pixel, and
a bit for each tap that its window has inside the frame.

Loads are by pointers (cp.async), not by descriptors. Inspected with Triton 3.6 and ptxas 12.8, 128 pixels x 192
columns: by pointers a step is 149 instructions and 2 barriers, and its 8 wgmma run on into the next step. A box
[1, 8, 16, 64] of a descriptor comes to the product as [128, 64] through registers: its wgmma are started one by one,
and a step has 4 barriers and a fence. Nor could boxes step by 2 or stand for enlarged frames.
"""

import triton
import triton.language as tl


@triton.jit
def place_of(num_frames, num_tiles, NUM_BLOCKS: tl.constexpr):
    """(sample, frame, tile of pixels, block of columns) of this program. Blocks follow each other, since they read the
    same pixels; then frames, since they read each other's.
    """
    program = tl.program_id(0)
    frame = program // NUM_BLOCKS % num_frames
    rest = program // NUM_BLOCKS // num_frames
    return rest // num_tiles, frame, rest % num_tiles, program % NUM_BLOCKS


@triton.jit
def taps_inside(row, column, rows, columns, TAPS_Y: tl.constexpr, TAPS_X: tl.constexpr):
    """Bit y * TAPS_X + x: whether that tap of the window that begins at (row, column) lies in the frame."""
    bits = tl.zeros_like(row)
    for y in tl.static_range(TAPS_Y):
        for x in tl.static_range(TAPS_X):
            inside = (row + y >= 0) & (row + y < rows) & (column + x >= 0) & (column + x < columns)
            bits |= inside.to(tl.int32) << (y * TAPS_X + x)
    return bits


@triton.jit
def next_of(
    channel,
    tap_x,
    tap_y,
    frame,
    tap,
    NUM_IN: tl.constexpr,
    CHANNELS: tl.constexpr,
    TAPS_Y: tl.constexpr,
    TAPS_X: tl.constexpr,
):
    """The step after this one: channels first, then taps along x, along y, in time. Counted up: divided out of a single
    number, a step of 256 x 96 had 160 instructions, not 140.
    """
    channel += CHANNELS
    carry = tl.where(channel >= NUM_IN, 1, 0)
    channel *= 1 - carry
    tap += carry
    tap_x += carry
    carry = tl.where(tap_x == TAPS_X, 1, 0)
    tap_x *= 1 - carry
    tap_y += carry
    carry = tl.where(tap_y == TAPS_Y, 1, 0)
    return channel, tap_x, tap_y * (1 - carry), frame + carry, tap


@triton.jit
def start_of(x, history, sample, frame, position, in_frames, frame_size, NUM_SLOTS: tl.constexpr):
    """Where a frame of the sample starts: in x, or, before x, in its slot of the history."""
    number = sample * in_frames + frame
    if history is not None:
        number = tl.where(frame < 0, sample * NUM_SLOTS + (position + frame) % NUM_SLOTS, number)
        x = tl.where(frame < 0, history, x)
    return x + number.to(tl.int64) * frame_size


@triton.jit
def weights_of(weight, first, channels, WIDTH: tl.constexpr, NUM_OUT: tl.constexpr, STRIDE: tl.constexpr):
    """Of WIDTH output channels, those beyond the last standing for it: their sums are not stored."""
    return weight + tl.minimum(first + tl.arange(0, WIDTH), NUM_OUT - 1)[:, None] * STRIDE + channels


@triton.jit
def load_channels(pointers, channel, channels, NUM_IN: tl.constexpr, CHANNELS: tl.constexpr):
    """CHANNELS of every row, zeros beyond the last: beside x's zeros, for infinities."""
    if NUM_IN % CHANNELS:
        return tl.load(pointers, mask=channel + channels < NUM_IN, other=0.0)
    else:
        return tl.load(pointers)


@triton.jit
def finish(sums, first, pixel, is_pixel, bias, residual, out, NUM_OUT: tl.constexpr):
    """Columns from `first` on of what is summed up in float32 for pixels [PIXELS, 1] of all of out: rounded once."""
    columns = first + tl.arange(0, sums.shape[1])[None, :]
    is_column = columns < NUM_OUT
    at = pixel * NUM_OUT + columns
    if bias is not None:
        sums += tl.load(bias + columns, mask=is_column, other=0.0).to(tl.float32)
    if residual is not None:
        sums += tl.load(residual + at, mask=is_pixel & is_column, other=0.0).to(tl.float32)
    tl.store(out + at, sums.to(out.dtype.element_ty), mask=is_pixel & is_column)


# Another position is no reason to compile again.
@triton.jit(do_not_specialize=["position"])
def conv3d_fwd_kernel(
    x,  # [B, in_frames, rows, columns, NUM_IN], contiguous
    history,  # [B, NUM_SLOTS, rows, columns, NUM_IN], contiguous, or None where no frame comes before x
    weight,  # [NUM_OUT, TAPS_T, TAPS_Y, TAPS_X, NUM_IN], contiguous
    bias,  # [NUM_OUT] or None
    residual,  # as out, or None
    out,  # [B, num_frames, out_rows, out_columns, NUM_OUT], contiguous
    position,  # how many frames came before x; frame -i of x is the history's (position - i) % NUM_SLOTS
    in_frames,
    rows,
    columns,
    num_frames,
    out_rows,
    out_columns,
    top,
    left,
    NUM_SLOTS: tl.constexpr,
    NUM_IN: tl.constexpr,
    NUM_OUT: tl.constexpr,
    TAPS_T: tl.constexpr,
    TAPS_Y: tl.constexpr,
    TAPS_X: tl.constexpr,
    STRIDE_T: tl.constexpr,
    STRIDE_Y: tl.constexpr,
    STRIDE_X: tl.constexpr,
    ENLARGED_BITS: tl.constexpr,
    PIXELS: tl.constexpr,
    WIDTH: tl.constexpr,
    MORE_WIDTH: tl.constexpr,
    CHANNELS: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """PIXELS of one output frame by WIDTH + MORE_WIDTH output channels per program: sides of blocks are powers of two,
    and 96 = 64 + 32, 160 = 128 + 32, 192 = 128 + 64 are not. Both parts multiply the same pixels in shared memory.

    ENLARGED_BITS: the frames that are convolved have 2^bits times the rows and columns of x's, each pixel repeated.
    """
    TAPS_YX: tl.constexpr = TAPS_Y * TAPS_X
    STEPS: tl.constexpr = (NUM_IN + CHANNELS - 1) // CHANNELS
    STRIDE: tl.constexpr = TAPS_T * TAPS_YX * NUM_IN
    NUM_BLOCKS: tl.constexpr = (NUM_OUT + WIDTH + MORE_WIDTH - 1) // (WIDTH + MORE_WIDTH)
    num_pixels = out_rows * out_columns
    sample, frame, tile, block = place_of(num_frames, tl.cdiv(num_pixels, PIXELS), NUM_BLOCKS)
    pixel = tile * PIXELS + tl.arange(0, PIXELS)[:, None]
    is_pixel = pixel < num_pixels
    row = pixel // out_columns * STRIDE_Y - top
    column = pixel % out_columns * STRIDE_X - left
    bits = taps_inside(row, column, rows << ENLARGED_BITS, columns << ENLARGED_BITS, TAPS_Y, TAPS_X)
    bits = tl.where(is_pixel, bits, 0)
    channels = tl.arange(0, CHANNELS)[None, :]
    at = (row * columns + column) * NUM_IN + channels
    first = block * (WIDTH + MORE_WIDTH)
    weights = weights_of(weight, first, channels, WIDTH, NUM_OUT, STRIDE)
    sums = tl.zeros((PIXELS, WIDTH), tl.float32)
    if MORE_WIDTH:
        more_weights = weights_of(weight, first + WIDTH, channels, MORE_WIDTH, NUM_OUT, STRIDE)
        more_sums = tl.zeros((PIXELS, MORE_WIDTH), tl.float32)

    # Frames before the video are zeros: their taps are left out.
    first_frame = frame * STRIDE_T - (TAPS_T - STRIDE_T)
    num_missing = tl.maximum(-position - first_frame, 0)
    in_frame, tap = first_frame + num_missing, num_missing * TAPS_YX
    channel, tap_x, tap_y = 0, 0, 0
    for _ in range(tap * STEPS, TAPS_T * TAPS_YX * STEPS):
        source = channel + start_of(
            x, history, sample, in_frame, position, in_frames, rows * columns * NUM_IN, NUM_SLOTS
        )
        if ENLARGED_BITS:
            y, z = (row + tap_y) >> ENLARGED_BITS, (column + tap_x) >> ENLARGED_BITS
            pointers = source + ((y * columns + z) * NUM_IN + channels)
        else:
            pointers = source + (tap_y * columns + tap_x) * NUM_IN + at
        inside = (bits & (1 << (tap_y * TAPS_X + tap_x))) != 0
        if NUM_IN % CHANNELS:
            inside &= channel + channels < NUM_IN
        a = tl.load(pointers, mask=inside, other=0.0)
        b = load_channels(weights + (tap * NUM_IN + channel), channel, channels, NUM_IN, CHANNELS)
        sums = tl.dot(a, b.T, sums, input_precision=PRECISION)
        if MORE_WIDTH:
            b = load_channels(more_weights + (tap * NUM_IN + channel), channel, channels, NUM_IN, CHANNELS)
            more_sums = tl.dot(a, b.T, more_sums, input_precision=PRECISION)
        channel, tap_x, tap_y, in_frame, tap = next_of(
            channel, tap_x, tap_y, in_frame, tap, NUM_IN, CHANNELS, TAPS_Y, TAPS_X
        )

    pixel += (sample.to(tl.int64) * num_frames + frame) * num_pixels
    finish(sums, first, pixel, is_pixel, bias, residual, out, NUM_OUT)
    if MORE_WIDTH:
        finish(more_sums, first + WIDTH, pixel, is_pixel, bias, residual, out, NUM_OUT)
