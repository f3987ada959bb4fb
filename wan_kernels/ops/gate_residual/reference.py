"""gate_residual in plain PyTorch: the specification.

Rounding points: everything in promote_types(x.dtype, float32), rounded once to x.dtype.
"""

from torch import Tensor

from wan_kernels.common.cost import Cost, num_bytes
from wan_kernels.common.modulation import add_gated


def forward(x: Tensor, y: Tensor, gate: Tensor, index: Tensor | None) -> Tensor:
    return add_gated(x, y, gate, index)


def cost(x: Tensor, y: Tensor, gate: Tensor, index: Tensor | None) -> Cost:
    """One multiply-add per element."""
    return Cost(2 * x.numel(), num_bytes(x, x, y, gate, index))
