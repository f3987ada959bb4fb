"""The second stage of sums over tokens, and what their first stages share. common/triton_sums.py says how they work."""

import triton
import triton.language as tl


@triton.jit
def token_at(place, order):
    """The token (counted over the batch) at a place of the walk."""
    if order is None:
        return tl.cast(place, tl.int64)
    else:
        return tl.load(order + place)


@triton.jit
def row_at(place, rows, row_length):
    """The modulation row (counted over the batch) at a place of the walk."""
    if rows is None:
        return tl.cast(place // row_length, tl.int64)
    else:
        return tl.load(rows + place)


@triton.jit
def places_of(row, starts, row_length):
    """A row's first place and the next one's."""
    if starts is None:
        return row * row_length, (row + 1) * row_length
    else:
        return tl.load(starts + row), tl.load(starts + row + 1)


@triton.jit
def leave_sum(slots, slot, total, columns, inside, width):
    """A program's sum goes to its slot; slots may be None."""
    if slots is not None:
        tl.store(slots + tl.cast(slot, tl.int64) * width + columns, total, mask=inside)


@triton.jit
def add_to_sum(slots, slot, total, is_first, columns, inside, width):
    """The same for a slot that the program comes back to: what lies there is added, but the first time."""
    if slots is not None:
        at = slots + tl.cast(slot, tl.int64) * width + columns
        tl.store(at, total + tl.load(at, mask=inside & (is_first == 0), other=0.0), mask=inside)


@triton.jit
def sum_slots_kernel(
    slots,  # [num_programs + num_rows - 1, width] float32
    out,  # [num_rows, width], contiguous, any float
    starts,  # [num_rows + 1] or None: each row's first place, where not row_length apart
    row_length,
    span,
    width,
    SLOTS: tl.constexpr,
    COLUMNS: tl.constexpr,
):
    """Some columns of one row per program: the slots of the programs that met the row, in order; a row that no token
    has is zero.
    """
    row = tl.program_id(0).to(tl.int64)
    columns = tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS)[None, :]
    begin, end = places_of(row, starts, row_length)
    first = begin // span
    last = tl.where(end > begin, (end - 1) // span + 1, first)
    total = tl.zeros((SLOTS, COLUMNS), tl.float32)
    for program in range(first, last, SLOTS):
        programs = program + tl.arange(0, SLOTS)[:, None]
        mask = (programs < last) & (columns < width)
        total += tl.load(slots + (programs + row) * width + columns, mask=mask, other=0.0)
    summed = tl.sum(total, axis=0)[None, :]
    tl.store(out + row * width + columns, summed.to(out.dtype.element_ty), mask=columns < width)
