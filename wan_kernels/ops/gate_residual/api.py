"""The public function."""

from torch import Tensor

from wan_kernels.ops.gate_residual import reference


def gate_residual(x: Tensor, y: Tensor, gate: Tensor, *, index: Tensor | None = None) -> Tensor:
    return reference.forward(x, y, gate, index)
