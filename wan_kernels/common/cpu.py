"""What every cpu backend asks of a call before it hands tensors to the C library."""

import torch
from torch import Tensor

DTYPES = frozenset((torch.float32, torch.bfloat16, torch.float16))


def reject_tensors(*tensors: Tensor | None) -> str | None:
    """Why the C library's CPU kernels cannot take these floating tensors, or None."""
    for tensor in tensors:
        if tensor is None:
            continue
        if not tensor.is_cpu:
            return f"needs tensors on the CPU, got {tensor.device}"
        if tensor.dtype not in DTYPES:
            return f"has no {str(tensor.dtype).removeprefix('torch.')} kernel"
    return None


def dense_rows(x: Tensor) -> Tensor:
    """x itself if the kernels can walk its rows in place (last dim contiguous, the rest folds), else a copy."""
    if x.is_contiguous() or (x.dim() <= 3 and x.stride(-1) == 1):
        return x
    return x.contiguous()


def dense_table(rows: Tensor | None) -> Tensor | None:
    """dense_rows of an optional tensor."""
    return None if rows is None else dense_rows(rows)


def gradient_like(x: Tensor | None, is_needed: bool) -> Tensor | None:
    """Contiguous memory for x's gradient, or None where it is not wanted."""
    return torch.empty(x.shape, dtype=x.dtype, device=x.device) if is_needed and x is not None else None
