"""linear_8bit on the device. Imported when it is first run: the backend itself needs no Triton.

A persistent loop over output tiles, flattened with the loop over K so that loads of the next tile start during the
epilogue of this one. The epilogue works on a quarter of the columns at a time (the remedy of tritonbench pull 1149): an
int8 128 x 256 tile with gate and float32 residual spills 60 bytes with halves, none with quarters (ptxas 12.8).
"""

import triton
import triton.language as tl

SQRT_2_OVER_PI = tl.constexpr(0.7978845608028654)
LOG2_E = tl.constexpr(1.4426950408889634)


@triton.jit
def gelu_tanh(y):
    """0.5 y (1 + tanh z) is y / (1 + exp(-2 z)): one exp2, one division."""
    z = SQRT_2_OVER_PI * (y + 0.044715 * y * y * y)
    return y / (1.0 + tl.exp2(-2.0 * LOG2_E * z))


@triton.jit
def tile_corner(tile, num_row_tiles, num_column_tiles, GROUP: tl.constexpr):
    """(row tile, column tile): GROUP row tiles go along the columns together, so that weight tiles are read from L2."""
    group = tile // (GROUP * num_column_tiles)
    first = group * GROUP
    size = min(num_row_tiles - first, GROUP)
    inside = tile % (GROUP * num_column_tiles)
    return first + inside % size, inside // size


@triton.jit
def finish(
    y,
    rows,
    columns,
    num_rows,
    num_columns,
    num_tokens,
    out,
    weight_scale,
    bias,
    residual,
    gate,
    index,
    residual_stride,
    gate_stride_sample,
    gate_stride_row,
    index_stride_sample,
    index_stride_token,
    HAS_ONE_GATE_ROW: tl.constexpr,
    GELU: tl.constexpr,
):
    """What follows the product, in float32, for y [rows, columns] that has its rows' scales already."""
    in_columns = columns < num_columns
    inside = (rows < num_rows)[:, None] & in_columns[None, :]
    y = y * tl.load(weight_scale + columns, mask=in_columns, other=0.0)[None, :]
    if bias is not None:
        y += tl.load(bias + columns, mask=in_columns, other=0.0).to(tl.float32)[None, :]
    if GELU:
        y = gelu_tanh(y)
    if gate is not None:
        if HAS_ONE_GATE_ROW:
            y = y * tl.load(gate + columns, mask=in_columns, other=0.0).to(tl.float32)[None, :]
        else:
            sample = rows // num_tokens
            at = sample.to(tl.int64) * gate_stride_sample
            if index is not None:
                token = sample * index_stride_sample + (rows % num_tokens) * index_stride_token
                at += tl.load(index + token, mask=rows < num_rows, other=0).to(tl.int64) * gate_stride_row
            y = y * tl.load(gate + at[:, None] + columns[None, :], mask=inside, other=0.0).to(tl.float32)
    if residual is not None:
        at = rows.to(tl.int64)[:, None] * residual_stride + columns[None, :]
        y += tl.load(residual + at, mask=inside, other=0.0).to(tl.float32)
    at = rows.to(tl.int64)[:, None] * num_columns + columns[None, :]
    tl.store(out + at, y.to(out.dtype.element_ty), mask=inside)


@triton.jit
def linear_8bit_fwd_kernel(
    x,  # descriptor of [num_rows, width], tiles [ROWS, WIDTH]
    weight,  # descriptor of [num_columns, width], tiles [COLUMNS, WIDTH]
    out,  # [num_rows, num_columns], contiguous, float32, bfloat16 or float16
    x_scale,  # [num_rows] float32
    weight_scale,  # [num_columns] float32
    bias,  # [num_columns] or None
    residual,  # [num_rows, num_columns] or None, the last dim contiguous
    gate,  # [B, R, num_columns] or None, the last dim contiguous
    index,  # [B, num_tokens] or None
    residual_stride,
    gate_stride_sample,
    gate_stride_row,
    index_stride_sample,
    index_stride_token,
    num_rows,
    num_columns,
    width,
    num_tokens,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    WIDTH: tl.constexpr,
    GROUP: tl.constexpr,
    IS_INT8: tl.constexpr,
    IS_PRECISE: tl.constexpr,
    HAS_ONE_GATE_ROW: tl.constexpr,
    GELU: tl.constexpr,
):
    """IS_PRECISE: float8 sums go from the tensor core's about 14 bits to float32 after each tile of K."""
    SUM: tl.constexpr = tl.int32 if IS_INT8 else tl.float32
    num_row_tiles = tl.cdiv(num_rows, ROWS)
    num_column_tiles = tl.cdiv(num_columns, COLUMNS)
    num_steps = tl.cdiv(width, WIDTH)
    # Without this the flattened loop comes twice, once for an empty K.
    tl.assume(num_steps > 0)
    for tile in tl.range(tl.program_id(0), num_row_tiles * num_column_tiles, tl.num_programs(0), flatten=True):
        row_tile, column_tile = tile_corner(tile, num_row_tiles, num_column_tiles, GROUP)
        total = tl.zeros((ROWS, COLUMNS), SUM)
        for step in range(num_steps):
            a = x.load([row_tile * ROWS, step * WIDTH])
            b = weight.load([column_tile * COLUMNS, step * WIDTH])
            if IS_PRECISE:
                total += tl.dot(a, b.T, out_dtype=SUM)
            else:
                total = tl.dot(a, b.T, total, out_dtype=SUM)
        rows = row_tile * ROWS + tl.arange(0, ROWS)
        row_scales = tl.load(x_scale + rows, mask=rows < num_rows, other=0.0)
        columns = column_tile * COLUMNS + tl.arange(0, COLUMNS // 4)
        halves = tl.split(total.reshape(ROWS, 2, COLUMNS // 2).permute(0, 2, 1))
        for half in tl.static_range(2):
            quarters = tl.split(halves[half].reshape(ROWS, 2, COLUMNS // 4).permute(0, 2, 1))
            for quarter in tl.static_range(2):
                y = quarters[quarter].to(tl.float32) * row_scales[:, None]
                finish(
                    y,
                    rows,
                    columns + (2 * half + quarter) * (COLUMNS // 4),
                    num_rows,
                    num_columns,
                    num_tokens,
                    out,
                    weight_scale,
                    bias,
                    residual,
                    gate,
                    index,
                    residual_stride,
                    gate_stride_sample,
                    gate_stride_row,
                    index_stride_sample,
                    index_stride_token,
                    HAS_ONE_GATE_ROW,
                    GELU,
                )
