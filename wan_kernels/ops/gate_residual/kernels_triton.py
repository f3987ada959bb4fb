"""gate_residual on the device. Imported when it is first run: the backend itself needs no Triton."""

import triton
import triton.language as tl

from wan_kernels.common.triton_rows_kernel import modulation_row
from wan_kernels.common.triton_sums_kernel import leave_sum, places_of, row_at, token_at


@triton.jit
def gate_residual_fwd_kernel(
    x,  # [num_rows, width], any float, as y and gate; their last dims contiguous
    y,
    out,  # [num_rows, width], contiguous
    gate,  # [B, R, width]
    index,  # [B, num_tokens] or None
    x_stride,
    y_stride,
    gate_stride_sample,
    gate_stride_row,
    index_stride_sample,
    index_stride_token,
    num_rows,
    num_tokens,
    width,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
):
    """A tile per program; those beside each other lie beside each other in a row."""
    num_blocks = tl.cdiv(width, COLUMNS)
    rows = tl.program_id(0) // num_blocks * ROWS + tl.arange(0, ROWS)[:, None]
    columns = tl.program_id(0) % num_blocks * COLUMNS + tl.arange(0, COLUMNS)[None, :]
    inside = (rows < num_rows) & (columns < width)
    # Rows past the end take the last one's gate, which is not used.
    last = tl.minimum(rows, num_rows - 1)
    sample = (last // num_tokens).to(tl.int64)
    modulation = modulation_row(index, sample, last % num_tokens, index_stride_sample, index_stride_token)
    rows = rows.to(tl.int64)
    value = tl.load(x + rows * x_stride + columns, mask=inside, eviction_policy="evict_first").to(tl.float32)
    added = tl.load(y + rows * y_stride + columns, mask=inside, eviction_policy="evict_first").to(tl.float32)
    gate += sample * gate_stride_sample + modulation * gate_stride_row
    value += added * tl.load(gate + columns, mask=inside).to(tl.float32)
    tl.store(out + rows * width + columns, value.to(out.dtype.element_ty), mask=inside)


@triton.jit
def gate_residual_bwd_kernel(
    grad_out,  # [num_places, width], any float, as y and gate; their last dims contiguous
    y,
    gate,  # [B, R, width]
    grad_x,  # [num_places, width], contiguous, or None where it is not asked for, as grad_y
    grad_y,
    gate_slots,  # [num_slots, width] float32 or None
    order,  # the walk: common/triton_sums.py
    rows,
    starts,
    grad_out_stride,
    y_stride,
    gate_stride_sample,
    gate_stride_row,
    num_modulations,  # R
    span,
    num_places,
    row_length,
    width,
    COLUMNS: tl.constexpr,
    STAGES: tl.constexpr,
):
    """Some columns of a span of tokens per program."""
    num_blocks = tl.cdiv(width, COLUMNS)
    program = tl.program_id(0) // num_blocks
    begin = program * span
    end = tl.minimum(begin + span, num_places)
    columns = tl.program_id(0) % num_blocks * COLUMNS + tl.arange(0, COLUMNS)
    inside = columns < width
    for row in range(row_at(begin, rows, row_length), row_at(end - 1, rows, row_length) + 1):
        row_begin, row_end = places_of(row, starts, row_length)
        total = tl.zeros((COLUMNS,), tl.float32)
        at = row // num_modulations * gate_stride_sample + row % num_modulations * gate_stride_row
        gates = tl.load(gate + at + columns, mask=inside, other=0.0).to(tl.float32)
        for place in tl.range(tl.maximum(begin, row_begin), tl.minimum(end, row_end), num_stages=STAGES):
            token = token_at(place, order)
            grad = tl.load(grad_out + token * grad_out_stride + columns, mask=inside, other=0.0)
            if gate_slots is not None:
                added = tl.load(y + token * y_stride + columns, mask=inside, other=0.0)
                total += grad.to(tl.float32) * added.to(tl.float32)
            if grad_x is not None:
                tl.store(grad_x + token * width + columns, grad, mask=inside)
            if grad_y is not None:
                gated = grad.to(tl.float32) * gates
                tl.store(grad_y + token * width + columns, gated.to(grad_y.dtype.element_ty), mask=inside)
        leave_sum(gate_slots, program + row, total, columns, inside, width)
