"""channel_rms_norm_silu on the device. Imported when it is first run: the backend itself needs no Triton.

Tiles are [POSITIONS, CHANNELS]. Whichever of the two strides is 1 is known when the kernel is compiled, and lanes are
laid along it: one source serves both layouts.
"""

import triton
import triton.language as tl

MIN_NORM = tl.constexpr(1e-12)


@triton.jit
def norm_of(x):
    """The norm of each position, at least MIN_NORM: [POSITIONS, 1]. NaN stays NaN."""
    norm = tl.sqrt_rn(tl.sum(x * x, axis=1))[:, None]
    return tl.where(norm < MIN_NORM, MIN_NORM, norm)


@triton.jit
def sigmoid(x):
    return 1.0 / (1.0 + tl.exp(-x))


@triton.jit
def tile_at(block, num_blocks, sample_stride, position_stride, POSITIONS: tl.constexpr):
    """(offset of a block's first element, number of its first position); blocks count through samples."""
    first = block % num_blocks * POSITIONS
    return (block // num_blocks).to(tl.int64) * sample_stride + first.to(tl.int64) * position_stride, first


@triton.jit
def channel_rms_norm_silu_fwd_kernel(
    x,  # [num_samples, num_channels, num_positions] by its strides, as out
    weight,  # [num_channels]
    out,
    sample_stride,
    channel_stride,
    position_stride,
    num_channels,
    num_positions,
    num_blocks,  # of a sample
    root,  # of num_channels
    HAS_SILU: tl.constexpr,
    POSITIONS: tl.constexpr,
    CHANNELS: tl.constexpr,
):
    """A block of positions with all their channels per program, in registers from the load to the store."""
    at, first = tile_at(tl.program_id(0), num_blocks, sample_stride, position_stride, POSITIONS)
    position, channel = tl.arange(0, POSITIONS)[:, None], tl.arange(0, CHANNELS)[None, :]
    inside = (first + position < num_positions) & (channel < num_channels)
    at += channel.to(tl.int64) * channel_stride + position * position_stride
    y = tl.load(x + at, mask=inside, other=0.0, eviction_policy="evict_first").to(tl.float32)
    weights = tl.load(weight + channel, mask=channel < num_channels, other=0.0).to(tl.float32)
    y = y * (root / norm_of(y)) * weights
    if HAS_SILU:
        y *= sigmoid(y)
    tl.store(out + at, y.to(out.dtype.element_ty), mask=inside)


@triton.jit
def channel_rms_norm_silu_bwd_kernel(
    grad_out,  # [num_samples, num_channels, num_positions] by its strides, as x and grad_x
    x,
    weight,  # [num_channels]
    grad_x,  # None where it is not asked for
    weight_slots,  # [num_programs, num_channels] float32, or None
    sample_stride,
    channel_stride,
    position_stride,
    num_channels,
    num_positions,
    num_blocks,  # of a sample
    num_all_blocks,
    span,
    root,  # of num_channels
    HAS_SILU: tl.constexpr,
    POSITIONS: tl.constexpr,
    CHANNELS: tl.constexpr,
):
    """A span of blocks per program. With u = x / norm and g the gradient of u: grad_x = (g - u * sum(g * u)) / norm;
    where the norm is clamped no gradient flows through it.
    """
    program = tl.program_id(0)
    begin = program * span
    position, channel = tl.arange(0, POSITIONS)[:, None], tl.arange(0, CHANNELS)[None, :]
    weights = tl.load(weight + channel, mask=channel < num_channels, other=0.0).to(tl.float32)
    total = tl.zeros((POSITIONS, CHANNELS), tl.float32)
    for block in range(begin, tl.minimum(begin + span, num_all_blocks)):
        at, first = tile_at(block, num_blocks, sample_stride, position_stride, POSITIONS)
        at += channel.to(tl.int64) * channel_stride + position * position_stride
        inside = (first + position < num_positions) & (channel < num_channels)
        unit = tl.load(x + at, mask=inside, other=0.0).to(tl.float32)
        grad = tl.load(grad_out + at, mask=inside, other=0.0).to(tl.float32)
        norm = norm_of(unit)
        unit /= norm
        if HAS_SILU:
            value = unit * root * weights
            gate = sigmoid(value)
            grad *= gate * (1.0 + value * (1.0 - gate))
        grad *= root
        if weight_slots is not None:
            total += grad * unit
        if grad_x is not None:
            grad *= weights
            along = tl.where(norm > MIN_NORM, tl.sum(grad * unit, axis=1)[:, None], 0.0)
            grad = (grad - unit * along) / norm
            tl.store(grad_x + at, grad.to(grad_x.dtype.element_ty), mask=inside)
    if weight_slots is not None:
        at = program.to(tl.int64) * num_channels + tl.arange(0, CHANNELS)
        tl.store(weight_slots + at, tl.sum(total, axis=0), mask=tl.arange(0, CHANNELS) < num_channels)
