"""quantize_rows through the C library."""

import torch
from torch import Tensor

from wan_kernels import native
from wan_kernels.common.cpu import dense_rows, reject_tensors
from wan_kernels.dispatch import register_backend


def forward(x: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    out, scale = torch.empty(x.shape, dtype=dtype), torch.empty(x.shape[:-1])
    native.library().quantize_rows(out, scale, dense_rows(x))
    return out, scale


def reject(x: Tensor, dtype: torch.dtype) -> str | None:
    return reject_tensors(x)


register_backend("quantize_rows", "cpu", forward=forward, available=native.cpu_unavailable, reject=reject)
