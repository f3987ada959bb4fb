"""The public function and its op."""

from torch import Tensor

from wan_kernels.common.checks import check_gate_residual, check_tensor
from wan_kernels.define_op import define_op
from wan_kernels.ops.gate_residual import reference

NAME = "gate_residual"
OP = define_op("gate_residual(Tensor x, Tensor y, Tensor gate, Tensor? index=None) -> Tensor", reference)


def gate_residual(x: Tensor, y: Tensor, gate: Tensor, *, index: Tensor | None = None) -> Tensor:
    """x + y * gate[row]: the residual stream takes what a layer made of it.

    Shapes and types: x [B, L, D], the residual stream, normally float32; y [B, L, D]; gate [B, R, D]; each
    float32/bfloat16/float16/float64; index [B, L], int32/int64: the gate row of each token, None where R == 1.
    Returns a new contiguous [B, L, D] in x.dtype. B or L may be 0.
    Units and ranges: index in [0, R), not checked.
    Numerics: everything in float32 (float64 x stays float64), rounded once to x.dtype. NaN and infinity stay in their
    element.
    Raises: TypeError for a dtype, ValueError for a shape or device.
    Source: arXiv 2212.09748, section 3.2; float32 as Wan2.1 at 9737cba, modules/model.py, WanAttentionBlock.
    """
    check_tensor(NAME, "gate", gate)
    check_gate_residual(NAME, x, y, gate, None, index)
    return OP(x, y, gate, index)
