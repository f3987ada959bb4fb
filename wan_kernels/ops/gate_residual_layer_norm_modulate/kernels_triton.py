"""gate_residual_layer_norm_modulate on the device. Imported when it is first run: the backend needs no Triton."""

import triton
import triton.language as tl

from wan_kernels.common.triton_layer_norm_kernel import (
    add_gated_row,
    factor_of_row,
    gradient_of_row,
    leave_norm_sums,
    normalise_and_modulate,
)
from wan_kernels.common.triton_rows_kernel import load_row, modulation_row, normalise
from wan_kernels.common.triton_sums_kernel import leave_sum, places_of, row_at, token_at


@triton.jit
def gate_residual_layer_norm_modulate_fwd_kernel(
    x,  # [num_rows, width], any float, as all inputs but index; their last dims contiguous
    y,  # [num_rows, width]
    stream,  # [num_rows, width], contiguous
    out,  # [num_rows, width], any float, contiguous
    gate,  # [B, R, width] or None, as scale and shift
    scale,
    shift,
    weight,  # [width] or None, as bias
    bias,
    index,  # [B, num_tokens] or None
    x_stride,
    y_stride,
    gate_stride_sample,
    gate_stride_row,
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
    """A token per program, its row in registers from the sum to the result: the stream is written and not read back."""
    row = tl.program_id(0).to(tl.int64)
    columns = tl.arange(0, BLOCK)
    inside = columns < width
    sample = row // num_tokens
    modulation = modulation_row(index, sample, row % num_tokens, index_stride_sample, index_stride_token)
    if gate is not None:
        gate += sample * gate_stride_sample + modulation * gate_stride_row
    if scale is not None:
        scale += sample * scale_stride_sample + modulation * scale_stride_row
        shift += sample * shift_stride_sample + modulation * shift_stride_row
    total = add_gated_row(stream + row * width, x + row * x_stride, y + row * y_stride, gate, columns, inside)
    normed = normalise_and_modulate(total, scale, shift, weight, bias, columns, inside, width, eps)
    tl.store(out + row * width + columns, normed.to(out.dtype.element_ty), mask=inside)


@triton.jit
def gate_residual_layer_norm_modulate_bwd_kernel(
    grad_stream,  # [num_places, width], any float, as all inputs; their last dims contiguous; None for zeros
    grad_out,  # or None for zeros
    y,
    stream,  # [num_places, width], contiguous
    gate,  # [B, R, width] or None, as scale
    scale,
    weight,  # [width] or None, as bias
    bias,
    grad_x,  # [num_places, width], contiguous, or None where it is not asked for, as grad_y
    grad_y,
    gate_slots,  # [num_slots, width] float32 or None, as the next four
    scale_slots,
    shift_slots,
    weight_slots,
    bias_slots,
    order,  # the walk: common/triton_sums.py
    rows,
    starts,
    grad_stream_stride,
    grad_out_stride,
    y_stride,
    gate_stride_sample,
    gate_stride_row,
    scale_stride_sample,
    scale_stride_row,
    num_modulations,  # R
    span,
    num_places,
    row_length,
    eps,
    WIDTH: tl.constexpr,
    BLOCK: tl.constexpr,
    STAGES: tl.constexpr,
):
    """A span of tokens per program. What comes through the norm joins the stream's gradient in registers; their sum
    goes to x, and with the gate to y.

    The width is a constant, so that what lies past 5120 of 8192 values takes no registers: spills 112 bytes otherwise.
    """
    program = tl.program_id(0)
    begin = program * span
    end = tl.minimum(begin + span, num_places)
    columns = tl.arange(0, BLOCK)
    inside = columns < WIDTH
    first_row = row_at(begin, rows, row_length)
    for row in range(first_row, row_at(end - 1, rows, row_length) + 1):
        row_begin, row_end = places_of(row, starts, row_length)
        sample = row // num_modulations
        modulation = row % num_modulations
        of_gate = gate
        if gate is not None:
            of_gate = gate + sample * gate_stride_sample + modulation * gate_stride_row
        of_scale = scale
        if scale is not None:
            of_scale = scale + sample * scale_stride_sample + modulation * scale_stride_row
        factor = factor_of_row(of_scale, weight, columns, inside, BLOCK)
        gate_total = tl.zeros((BLOCK,), tl.float32)
        product_total = tl.zeros((BLOCK,), tl.float32)
        grad_total = tl.zeros((BLOCK,), tl.float32)
        for place in tl.range(tl.maximum(begin, row_begin), tl.minimum(end, row_end), num_stages=STAGES):
            token = token_at(place, order)
            total = tl.zeros((BLOCK,), tl.float32)
            if grad_out is not None:
                grad = tl.load(grad_out + token * grad_out_stride + columns, mask=inside, other=0.0).to(tl.float32)
                value = tl.load(stream + token * WIDTH + columns, mask=inside, other=0.0).to(tl.float32)
                value, reciprocal = normalise(value, inside, WIDTH, eps)
                product_total += grad * value
                grad_total += grad
                total = gradient_of_row(grad * factor, value, reciprocal, WIDTH)
            if grad_stream is not None:
                total += tl.load(grad_stream + token * grad_stream_stride + columns, mask=inside, other=0.0)
            if grad_x is not None:
                tl.store(grad_x + token * WIDTH + columns, total.to(grad_x.dtype.element_ty), mask=inside)
            if gate_slots is not None:
                gate_total += total * tl.load(y + token * y_stride + columns, mask=inside, other=0.0).to(tl.float32)
            if grad_y is not None:
                if gate is not None:
                    # Anew for each token, from the cache: kept in registers it spills 156 bytes.
                    total *= load_row(of_gate, columns, inside)
                tl.store(grad_y + token * WIDTH + columns, total.to(grad_y.dtype.element_ty), mask=inside)
        leave_sum(gate_slots, program + row, gate_total, columns, inside, WIDTH)
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
            WIDTH,
        )
