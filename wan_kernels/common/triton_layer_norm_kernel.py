"""LayerNorm with modulation on the device, of a row in registers, its gradient, and the gated sum that may precede it.

Pointers are at their rows; optional ones may be None. Everything is float32 between the loads and the stores.
"""

import triton
import triton.language as tl

from wan_kernels.common.triton_rows_kernel import load_row, load_row_once, normalise
from wan_kernels.common.triton_sums_kernel import add_to_sum, leave_sum


@triton.jit
def add_gated_row(stream, x, y, gate, columns, inside):
    """Stores x + y [* gate] to stream and returns what was stored, rounded as it was."""
    added = load_row_once(y, columns, inside)
    if gate is not None:
        added *= load_row(gate, columns, inside)
    total = (load_row_once(x, columns, inside) + added).to(stream.dtype.element_ty)
    tl.store(stream + columns, total, mask=inside)
    return total.to(tl.float32)


@triton.jit
def normalise_and_modulate(y, scale, shift, weight, bias, columns, inside, width, eps):
    """(LN(y) [* weight + bias]) [* (1 + scale) + shift]; y holds zeros past its end, the result anything."""
    y, _ = normalise(y, inside, width, eps)
    if weight is not None:
        y = y * load_row(weight, columns, inside)
        y += load_row(bias, columns, inside)
    if scale is not None:
        y = y * (1.0 + load_row(scale, columns, inside))
        y += load_row(shift, columns, inside)
    return y


@triton.jit
def factor_of_row(scale, weight, columns, inside, BLOCK: tl.constexpr):
    """[weight] * [1 + scale]: what a normalised row is multiplied by."""
    factor = tl.full((BLOCK,), 1.0, tl.float32)
    if scale is not None:
        factor += load_row(scale, columns, inside)
    if weight is not None:
        factor *= load_row(weight, columns, inside)
    return factor


@triton.jit
def gradient_of_row(grad, normed, reciprocal, width):
    """A row's gradient from that of it normalised: r * (g - mean(g) - n * mean(g * n)), r = 1 / sqrt(var + eps)."""
    grad -= tl.sum(grad, axis=0) / width + normed * (tl.sum(grad * normed, axis=0) / width)
    return grad * reciprocal


@triton.jit
def leave_norm_sums(
    scale_slots,
    shift_slots,
    weight_slots,
    bias_slots,
    scale,
    weight,
    bias,
    program,
    row,
    is_first,
    product_total,
    grad_total,
    columns,
    inside,
    width,
):
    """A program's sums over the tokens of one modulation row, of grad * n and of grad, go where they belong.

    All four gradients come from these two, because scale, weight and bias are the same for all these tokens.
    """
    if scale_slots is not None:
        scale_total = product_total
        if weight is not None:
            scale_total *= load_row(weight, columns, inside)
            scale_total += grad_total * load_row(bias, columns, inside)
        leave_sum(scale_slots, program + row, scale_total, columns, inside, width)
    leave_sum(shift_slots, program + row, grad_total, columns, inside, width)
    if weight_slots is not None or bias_slots is not None:
        if scale is not None:
            factor = 1.0 + load_row(scale, columns, inside)
            product_total *= factor
            grad_total *= factor
        add_to_sum(weight_slots, program, product_total, is_first, columns, inside, width)
        add_to_sum(bias_slots, program, grad_total, is_first, columns, inside, width)
