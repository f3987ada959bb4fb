"""The public function and its op."""

from torch import Tensor

from wan_kernels.common.checks import check_dim, check_same_device, check_shape, check_tensor, short
from wan_kernels.define_op import define_op
from wan_kernels.ops.upsample_conv2d import reference

NAME = "upsample_conv2d"
OP = define_op("upsample_conv2d(Tensor x, Tensor weight, Tensor? bias=None) -> Tensor", reference)


def upsample_conv2d(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """conv2d(nearest(x, 2), weight, padding 1) + bias of every frame: doubles rows and columns in the VAE's decoder.

    Shapes and types: x [B, C, T, Y, X], float32/bfloat16/float16/float64; weight [O, C, 3, 3] and bias [O] in
    x.dtype. Returns [B, O, T, 2 Y, 2 X], channels-last where x is channels-last and contiguous otherwise. B or T
    may be 0.
    Numerics: accumulated in float32 or wider, rounded once to x.dtype. NaN and infinity as in causal_conv3d. Where a
    backend is fused (`cpu`, channels-last) the doubled frames are never in memory.
    Raises: TypeError for a dtype, ValueError for a shape or device.
    Source: Wan2.1 at 9737cba, modules/vae.py, Resample.
    """
    check_tensor(NAME, "x", x)
    check_dim(NAME, "x", x, 5, "[B, C, T, Y, X]")
    if min(x.shape[3:]) < 1:
        raise ValueError(f"[{NAME}] x must have rows and columns, got shape {tuple(x.shape)}")
    check_dim(NAME, "weight", weight, 4, "[O, C, 3, 3]")
    check_shape(NAME, "weight", weight, (None, x.shape[1], 3, 3))
    for name, value in (("weight", weight), ("bias", bias)):
        if value is not None and value.dtype != x.dtype:
            raise TypeError(f"[{NAME}] {name} must be {short(x.dtype)} as x is, got {short(value.dtype)}")
    if bias is not None:
        check_shape(NAME, "bias", bias, weight.shape[:1])
    check_same_device(NAME, x=x, weight=weight, bias=bias)
    return OP(x, weight, bias)
