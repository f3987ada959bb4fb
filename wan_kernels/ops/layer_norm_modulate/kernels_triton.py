"""layer_norm_modulate on the device. Imported when it is first run: the backend itself needs no Triton."""

import triton
import triton.language as tl

from wan_kernels.common.triton_layer_norm_kernel import (
    factor_of_row,
    gradient_of_row,
    leave_norm_sums,
    normalise_and_modulate,
)
from wan_kernels.common.triton_rows_kernel import load_row_once, modulation_row, normalise
from wan_kernels.common.triton_sums_kernel import places_of, row_at, token_at


@triton.jit
def layer_norm_modulate_fwd_kernel(
    x,  # [num_rows, width], any float, as scale, shift, weight and bias; their last dims contiguous
    out,  # [num_rows, width], contiguous, any float
    scale,  # [B, R, width] or None, as shift
    shift,
    weight,  # [width] or None, as bias
    bias,
    index,  # [B, num_tokens] or None
    x_stride,
    scale_stride_sample,
    scale_stride_row,
    shift_stride_sample,
    shift_stride_row,
    index_stride_sample,
    index_stride_token,
    num_tokens,
    width,
    eps,
    BLOCK: tl.constexpr,
):
    """A token per program, its row in registers from the load to the store."""
    row = tl.program_id(0).to(tl.int64)
    columns = tl.arange(0, BLOCK)
    inside = columns < width
    y = load_row_once(x + row * x_stride, columns, inside)
    if scale is not None:
        sample = row // num_tokens
        modulation = modulation_row(index, sample, row % num_tokens, index_stride_sample, index_stride_token)
        scale += sample * scale_stride_sample + modulation * scale_stride_row
        shift += sample * shift_stride_sample + modulation * shift_stride_row
    y = normalise_and_modulate(y, scale, shift, weight, bias, columns, inside, width, eps)
    tl.store(out + row * width + columns, y.to(out.dtype.element_ty), mask=inside)


@triton.jit
def layer_norm_modulate_bwd_kernel(
    grad_out,  # [num_places, width], any float, as x, scale, weight and bias; their last dims contiguous
    x,
    scale,  # [B, R, width] or None
    weight,  # [width] or None, as bias
    bias,
    grad_x,  # [num_places, width], contiguous, or None where it is not asked for
    scale_slots,  # [num_slots, width] float32 or None, as the next three
    shift_slots,
    weight_slots,
    bias_slots,
    order,  # the walk: common/triton_sums.py
    rows,
    starts,
    grad_out_stride,
    x_stride,
    scale_stride_sample,
    scale_stride_row,
    num_modulations,  # R
    span,
    num_places,
    row_length,
    width,
    eps,
    BLOCK: tl.constexpr,
    STAGES: tl.constexpr,
):
    """A span of tokens per program."""
    program = tl.program_id(0)
    begin = program * span
    end = tl.minimum(begin + span, num_places)
    columns = tl.arange(0, BLOCK)
    inside = columns < width
    first_row = row_at(begin, rows, row_length)
    for row in range(first_row, row_at(end - 1, rows, row_length) + 1):
        row_begin, row_end = places_of(row, starts, row_length)
        of_scale = scale
        if scale is not None:
            of_scale = scale + row // num_modulations * scale_stride_sample + row % num_modulations * scale_stride_row
        factor = factor_of_row(of_scale, weight, columns, inside, BLOCK)
        product_total = tl.zeros((BLOCK,), tl.float32)
        grad_total = tl.zeros((BLOCK,), tl.float32)
        for place in tl.range(tl.maximum(begin, row_begin), tl.minimum(end, row_end), num_stages=STAGES):
            token = token_at(place, order)
            value = tl.load(x + token * x_stride + columns, mask=inside, other=0.0).to(tl.float32)
            grad = tl.load(grad_out + token * grad_out_stride + columns, mask=inside, other=0.0).to(tl.float32)
            value, reciprocal = normalise(value, inside, width, eps)
            if scale_slots is not None or weight_slots is not None:
                product_total += grad * value
            if shift_slots is not None or bias_slots is not None or scale_slots is not None:
                grad_total += grad
            if grad_x is not None:
                grad = gradient_of_row(grad * factor, value, reciprocal, width)
                tl.store(grad_x + token * width + columns, grad.to(grad_x.dtype.element_ty), mask=inside)
        leave_norm_sums(
            scale_slots,
            shift_slots,
            weight_slots,
            bias_slots,
            of_scale,
            weight,
            bias,
            program,
            row,
            row == first_row,
            product_total,
            grad_total,
            columns,
            inside,
            width,
        )
