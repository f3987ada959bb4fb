"""quantize_rows by the Triton kernel of common/triton_quantize_kernel.py. Experimental until a hardware record shows
that it passes: it runs only when forced.

The product with 1 / scale and its rounding to int8 are one fused multiply-add, so that of two codes equally near it may
take the other one.
"""

import torch
from torch import Tensor

from wan_kernels import records
from wan_kernels.common.triton import Launch, Outputs, reject_tensors, running, unavailable
from wan_kernels.common.triton_quantize import quantize_launch
from wan_kernels.dispatch import register_backend

NAME = "quantize_rows"


def prepare(x: Tensor, dtype: torch.dtype) -> tuple[Outputs, list[Launch]]:
    """The outputs, and what fills them."""
    codes = torch.empty(x.shape, dtype=dtype, device=x.device)
    scale = torch.empty(x.shape[:-1], dtype=torch.float32, device=x.device)
    return (codes, scale), [quantize_launch(x, codes, scale)] if scale.numel() else []


def reject(x: Tensor, dtype: torch.dtype) -> str | None:
    return reject_tensors(x)


register_backend(
    NAME,
    "triton",
    forward=running(prepare),
    available=unavailable,
    reject=reject,
    unproven=lambda: records.unproven(NAME, "triton"),
)
