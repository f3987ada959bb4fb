"""layer_norm_modulate_8bit on the device. Imported when it is first run: the backend itself needs no Triton."""

import triton
import triton.language as tl

from wan_kernels.common.triton_quantize_kernel import encode, magnitude_bits, scale_of
from wan_kernels.common.triton_rows_kernel import modulation_row, normalise


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
    y = tl.load(x + row * x_stride + columns, mask=inside, other=0.0, eviction_policy="evict_first").to(tl.float32)
    y, _ = normalise(y, inside, width, eps)
    if weight is not None:
        y = y * tl.load(weight + columns, mask=inside, other=0.0).to(tl.float32)
        y += tl.load(bias + columns, mask=inside, other=0.0).to(tl.float32)
    if scale is not None:
        sample = row // num_tokens
        modulation = modulation_row(index, sample, row % num_tokens, index_stride_sample, index_stride_token)
        scale += sample * scale_stride_sample + modulation * scale_stride_row
        shift += sample * shift_stride_sample + modulation * shift_stride_row
        y = y * (1.0 + tl.load(scale + columns, mask=inside, other=0.0).to(tl.float32))
        y += tl.load(shift + columns, mask=inside, other=0.0).to(tl.float32)
    # Beyond the width a row that is not finite holds NaN times zero.
    largest = tl.max(tl.where(inside, magnitude_bits(y), 0), axis=0)
    row_scale, inverse, is_finite = scale_of(largest, LIMIT)
    tl.store(codes + row * width + columns, encode(y, inverse, is_finite, codes.dtype.element_ty), mask=inside)
    tl.store(scales + row, row_scale)
