"""Row-wise 8-bit quantisation on the device: the formula of common/quantize.py, and the kernel that does only that."""

import triton
import triton.language as tl

# As integers, magnitudes are ordered as their values are, and a NaN stands above infinity: the maximum keeps it.
MAGNITUDE = tl.constexpr(0x7FFFFFFF)
INFINITY = tl.constexpr(0x7F800000)
SMALLEST_NORMAL = tl.constexpr(2.0**-126)
# Adding 1.5 * 2^23 rounds to an integer, ties to even, and leaves it in the lowest bits, two's complement.
ROUNDER = tl.constexpr(12582912.0)


@triton.jit
def magnitude_bits(y):
    """|y| as an int32 of the same order, y float32."""
    return y.to(tl.int32, bitcast=True) & MAGNITUDE


@triton.jit
def scale_of(amax_bits, LIMIT: tl.constexpr):
    """(scale, 1 / scale, whether the row is finite) from its largest magnitude bits; not finite: 0 for 1 / scale."""
    floor = tl.full((), LIMIT * SMALLEST_NORMAL, tl.float32).to(tl.int32, bitcast=True)
    amax = tl.maximum(amax_bits, floor).to(tl.float32, bitcast=True)
    scale = tl.div_rn(amax, tl.full((), LIMIT, tl.float32))
    is_finite = amax_bits < INFINITY
    return scale, tl.where(is_finite, tl.div_rn(tl.full((), 1.0, tl.float32), scale), 0.0), is_finite


@triton.jit
def encode(y, inverse, is_finite, CODE: tl.constexpr):
    """Codes of y float32: no clamp, since |y| / scale exceeds the limit by rounding errors only."""
    values = tl.where(is_finite, y, 0.0) * inverse
    if tl.int8 == CODE:
        return (values + ROUNDER).to(tl.int32, bitcast=True).to(tl.int8)
    else:
        return values.to(tl.float8e4nv)


@triton.jit
def quantize_row(codes, scale, y, columns, inside, LIMIT: tl.constexpr):
    """Codes and scale, pointers at the row, of y float32 in registers, which may hold anything past its end."""
    largest = tl.max(tl.where(inside, magnitude_bits(y), 0), axis=0)
    row_scale, inverse, is_finite = scale_of(largest, LIMIT)
    tl.store(codes + columns, encode(y, inverse, is_finite, codes.dtype.element_ty), mask=inside)
    tl.store(scale, row_scale)


@triton.jit
def quantize_rows_fwd_kernel(
    x,  # [num_rows, WIDTH], any float; the last dim contiguous
    codes,  # [num_rows, WIDTH], contiguous
    scales,  # [num_rows] float32
    row_stride,
    width,
    LIMIT: tl.constexpr,
    BLOCK: tl.constexpr,
    IS_ONE_BLOCK: tl.constexpr,
):
    """A row per program. One block holds the row in registers; wider rows are read twice, the second time from L2."""
    row = tl.program_id(0).to(tl.int64)
    x += row * row_stride
    codes += row * width
    columns = tl.arange(0, BLOCK)
    if IS_ONE_BLOCK:
        y = tl.load(x + columns, mask=columns < width, other=0.0, eviction_policy="evict_first").to(tl.float32)
        scale, inverse, is_finite = scale_of(tl.max(magnitude_bits(y), axis=0), LIMIT)
        tl.store(codes + columns, encode(y, inverse, is_finite, codes.dtype.element_ty), mask=columns < width)
    else:
        largest = tl.zeros((BLOCK,), tl.int32)
        for start in range(0, width, BLOCK):
            inside = start + columns < width
            y = tl.load(x + start + columns, mask=inside, other=0.0).to(tl.float32)
            largest = tl.maximum(largest, magnitude_bits(y))
        scale, inverse, is_finite = scale_of(tl.max(largest, axis=0), LIMIT)
        for start in range(0, width, BLOCK):
            inside = start + columns < width
            y = tl.load(x + start + columns, mask=inside, other=0.0, eviction_policy="evict_first").to(tl.float32)
            tl.store(codes + start + columns, encode(y, inverse, is_finite, codes.dtype.element_ty), mask=inside)
    tl.store(scales + row, scale)
