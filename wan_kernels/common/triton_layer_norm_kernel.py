"""LayerNorm with modulation on the device, of a row in registers, and the gated sum that may precede it.

Pointers are at their rows; optional ones may be None. Everything is float32 between the loads and the stores.
"""

import triton
import triton.language as tl

from wan_kernels.common.triton_rows_kernel import load_row, load_row_once, normalise


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
