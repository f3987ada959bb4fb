"""The public function."""

import torch
from torch import Tensor

from wan_kernels.ops.layer_norm_modulate import reference


def layer_norm_modulate(
    x: Tensor,
    scale: Tensor | None = None,
    shift: Tensor | None = None,
    *,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    index: Tensor | None = None,
    eps: float = 1e-6,
    out_dtype: torch.dtype | None = None,
) -> Tensor:
    return reference.forward(x, scale, shift, weight, bias, index, eps, out_dtype)
