"""layer_norm_modulate_8bit on the device. Imported when it is first run: the backend itself needs no Triton."""

import triton
import triton.language as tl

from wan_kernels.common.triton_layer_norm_kernel import normalise_and_modulate
from wan_kernels.common.triton_quantize_kernel import quantize_row
from wan_kernels.common.triton_rows_kernel import load_row_once, modulation_row


@triton.jit
def layer_norm_modulate_8bit_fwd_kernel(
    x,  # [num_rows, width], any float, as scale, shift, weight and bias; their last dims contiguous
    codes,  # [num_rows, width], contiguous
    scales,  # [num_rows] float32
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
    LIMIT: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """A token per program, its row in registers from the load to the codes: memory is read once."""
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
    quantize_row(codes + row * width, scales + row, y, columns, inside, LIMIT)
