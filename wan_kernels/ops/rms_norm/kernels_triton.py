"""rms_norm on the device. Imported when it is first run: the backend itself needs no Triton."""

import triton
import triton.language as tl

from wan_kernels.common.triton_rows_kernel import reciprocal_root
from wan_kernels.common.triton_sums_kernel import leave_sum


@triton.jit
def rms_norm_fwd_kernel(
    x,  # [num_rows, width], any float, as weight; the last dim contiguous
    weight,  # [width]
    out,  # [num_rows, width], contiguous
    x_stride,
    width,
    eps,
    BLOCK: tl.constexpr,
):
    """A row per program, in registers from the load to the store."""
    row = tl.program_id(0).to(tl.int64)
    columns = tl.arange(0, BLOCK)
    inside = columns < width
    y = tl.load(x + row * x_stride + columns, mask=inside, other=0.0, eviction_policy="evict_first").to(tl.float32)
    weights = tl.load(weight + columns, mask=inside, other=0.0).to(tl.float32)
    scale = reciprocal_root(tl.sum(y * y, axis=0) / width + eps)
    y = (y * scale).to(x.dtype.element_ty).to(tl.float32) * weights
    tl.store(out + row * width + columns, y.to(out.dtype.element_ty), mask=inside)


@triton.jit
def rms_norm_bwd_kernel(
    grad_out,  # [num_rows, width], any float, as x; their last dims contiguous
    x,
    weight,  # [width]
    grad_x,  # [num_rows, width], contiguous, or None where it is not asked for
    weight_slots,  # [num_programs, width] float32, or None
    grad_out_stride,
    x_stride,
    num_rows,
    span,
    width,
    eps,
    BLOCK: tl.constexpr,
    STAGES: tl.constexpr,
):
    """A span of rows per program. With g = grad_out * weight and r the reciprocal rms:
    grad_x = r * (g - x * r^2 * mean(g * x)).
    """
    program = tl.program_id(0)
    begin = program * span
    columns = tl.arange(0, BLOCK)
    inside = columns < width
    weights = tl.load(weight + columns, mask=inside, other=0.0).to(tl.float32)
    total = tl.zeros((BLOCK,), tl.float32)
    for place in tl.range(begin, tl.minimum(begin + span, num_rows), num_stages=STAGES):
        row = tl.cast(place, tl.int64)
        value = tl.load(x + row * x_stride + columns, mask=inside, other=0.0).to(tl.float32)
        grad = tl.load(grad_out + row * grad_out_stride + columns, mask=inside, other=0.0).to(tl.float32)
        scale = reciprocal_root(tl.sum(value * value, axis=0) / width + eps)
        if weight_slots is not None:
            total += grad * (value * scale).to(x.dtype.element_ty).to(tl.float32)
        if grad_x is not None:
            grad *= weights
            along_x = scale * scale * (tl.sum(grad * value, axis=0) / width)
            grad = scale * (grad - value * along_x)
            tl.store(grad_x + row * width + columns, grad.to(grad_x.dtype.element_ty), mask=inside)
    leave_sum(weight_slots, program, total, columns, inside, width)
