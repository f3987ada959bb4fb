"""gate_residual_layer_norm_modulate on the device. Imported when it is first run: the backend needs no Triton."""

import triton
import triton.language as tl

from wan_kernels.common.triton_layer_norm_kernel import add_gated_row, normalise_and_modulate
from wan_kernels.common.triton_rows_kernel import modulation_row


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
