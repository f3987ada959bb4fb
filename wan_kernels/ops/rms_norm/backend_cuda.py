"""rms_norm through the C library's sm_90a kernel: forward; the gradient is the next backend's. Experimental until a
hardware record shows that it passes: it runs only when forced.
"""

import torch
from torch import Tensor

from wan_kernels import native, records
from wan_kernels.common.cpu import DTYPES, dense_rows
from wan_kernels.dispatch import register_backend


def forward(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    x = dense_rows(x)
    out = torch.empty(x.shape, dtype=x.dtype, device=x.device)
    native.library().rms_norm(out, x, weight, eps)
    return out


def reject(x: Tensor, weight: Tensor, eps: float) -> str | None:
    if not (x.is_cuda and weight.is_cuda):
        return f"needs tensors on CUDA, got {x.device} and {weight.device}"
    if not (x.dtype in DTYPES and weight.dtype in DTYPES):
        return "has kernels for float32, bfloat16 and float16"
    return None


register_backend(
    "rms_norm",
    "cuda",
    forward=forward,
    available=native.cuda_unavailable,
    reject=reject,
    unproven=lambda: records.unproven("rms_norm", "cuda"),
)
