"""The public function and its op."""

from torch import Tensor

from wan_kernels.common.checks import check_positive, check_same_device, check_shape, check_tensor
from wan_kernels.define_op import define_op
from wan_kernels.ops.rms_norm import reference

OP = define_op("rms_norm(Tensor x, Tensor weight, float eps=1e-6) -> Tensor", reference)


def rms_norm(x: Tensor, weight: Tensor, *, eps: float = 1e-6) -> Tensor:
    """x / sqrt(mean(x^2) + eps) * weight, over the last dim.

    Shapes and types: x [..., D], float32/bfloat16/float16/float64, any strides; weight [D], any of these dtypes.
    Returns a contiguous tensor of x's shape and dtype. May be empty.
    Units and ranges: eps >= 0 is added to the mean square.
    Numerics: normalised in float32 (float64 stays float64), rounded to x.dtype, multiplied by weight in the wider of
    the two dtypes, rounded to x.dtype. A NaN or infinity makes its own row NaN where it touches it, no other row.
    Raises: TypeError for a dtype, ValueError for a shape, device or eps.
    Source: arXiv 1910.07467, eq. 4; rounding as Wan2.1 at 9737cba, modules/model.py, WanRMSNorm.
    """
    check_tensor("rms_norm", "x", x)
    check_tensor("rms_norm", "weight", weight)
    if x.dim() == 0:
        raise ValueError("[rms_norm] x must be [..., D], got a scalar")
    check_shape("rms_norm", "weight", weight, x.shape[-1:])
    check_same_device("rms_norm", x=x, weight=weight)
    check_positive("rms_norm", "eps", eps)
    return OP(x, weight, float(eps))
