"""gate_residual in plain PyTorch: the specification.

Rounding points: everything in promote_types(x.dtype, float32), rounded once to x.dtype.
"""

import torch
from torch import Tensor

from wan_kernels.common.cost import Cost, num_bytes
from wan_kernels.common.modulation import rows_of_tokens


def forward(x: Tensor, y: Tensor, gate: Tensor, index: Tensor | None) -> Tensor:
    compute = torch.promote_types(x.dtype, torch.float32)
    return (x.to(compute) + y.to(compute) * rows_of_tokens(gate.to(compute), index)).to(x.dtype).contiguous()


def cost(x: Tensor, y: Tensor, gate: Tensor, index: Tensor | None) -> Cost:
    """One multiply-add per element."""
    return Cost(2 * x.numel(), num_bytes(x, x, y, gate, index))
