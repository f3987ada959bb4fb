"""What the launches of kernels that keep a row in registers share."""

from typing import Any

from torch import Tensor

from wan_kernels.common.triton import strides, with_dense_rows

# Up to here a row stays in registers, 32 values a thread with 16 warps.
MAX_BLOCK = 16384


def reject_width(width: int) -> str | None:
    """Why a row of that width cannot stay in registers, or None."""
    if 0 < width <= MAX_BLOCK:
        return None
    return f"keeps a row in registers: it takes widths from 1 to {MAX_BLOCK}, got {width}"


def row_warps(block: int) -> int:
    """Warps for a row: at least 8 values a thread, so that loads are 16 bytes, and at most 8 warps to 8192 values."""
    return 16 if block > 8192 else max(1, min(8, block // 256))


def backward_warps(block: int) -> int:
    """Warps for a row of a backward, which holds the row, its gradient and sums: 16 values a thread up to 8192."""
    return max(1, min(16, block // 512))


def modulation_args(index: Tensor | None, **tables: Tensor | None) -> dict[str, Any]:
    """Kernel arguments for tables [B, R, D] and the index [B, L] into their rows, each with its strides."""
    index_strides = strides(index, 2)
    args = {"index": index, "index_stride_sample": index_strides[0], "index_stride_token": index_strides[1]}
    for name, table in tables.items():
        args |= table_args(name, table)
    return args


def table_args(name: str, table: Tensor | None) -> dict[str, Any]:
    """Kernel arguments for a table [B, R, D]: itself, its last dim contiguous, and its other strides."""
    dense = with_dense_rows(table)
    stride_sample, stride_row = strides(dense, 2)
    return {name: dense, f"{name}_stride_sample": stride_sample, f"{name}_stride_row": stride_row}
