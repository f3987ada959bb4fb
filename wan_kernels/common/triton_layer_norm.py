"""What the launches of every room with a LayerNorm share: its arguments, its limits, what it must compile to."""

from typing import Any

from torch import Tensor

from wan_kernels.common.triton import Expectation, strides, with_dense_rows
from wan_kernels.common.triton_quantize import MAX_BLOCK

# Two programs of 8 warps on a multiprocessor, the row in registers.
EXPECTS = Expectation(max_registers=128, min_ctas_per_sm=2, mnemonics=("SHFL",))


def norm_args(
    x: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    index: Tensor | None,
    eps: float,
    **tables: Tensor | None,
) -> dict[str, Any]:
    """Arguments for x [B, L, D], weight and bias [D], index [B, L] and the tables [B, R, D] by their names."""
    index_stride_sample, index_stride_token = strides(index, 2)
    args = {
        "weight": with_dense_rows(weight),
        "bias": with_dense_rows(bias),
        "index": index,
        "index_stride_sample": index_stride_sample,
        "index_stride_token": index_stride_token,
        "num_tokens": x.shape[1],
        "width": x.shape[2],
        "eps": eps,
    }
    for name, table in tables.items():
        rows = with_dense_rows(table)
        stride_sample, stride_row = strides(rows, 2)
        args |= {name: rows, f"{name}_stride_sample": stride_sample, f"{name}_stride_row": stride_row}
    return args


def reject_width(x: Tensor) -> str | None:
    """Why a row does not fit the registers, or None."""
    if 0 < x.shape[-1] <= MAX_BLOCK:
        return None
    return f"keeps a row in registers: it takes widths from 1 to {MAX_BLOCK}, got {x.shape[-1]}"
