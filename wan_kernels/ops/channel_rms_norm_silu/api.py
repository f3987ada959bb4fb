"""The public function and its op."""

from torch import Tensor

from wan_kernels.common.checks import check_same_device, check_shape, check_tensor
from wan_kernels.define_op import define_op
from wan_kernels.ops.channel_rms_norm_silu import reference

NAME = "channel_rms_norm_silu"
OP = define_op("channel_rms_norm_silu(Tensor x, Tensor weight, bool apply_silu=True) -> Tensor", reference)


def channel_rms_norm_silu(x: Tensor, weight: Tensor, *, apply_silu: bool = True) -> Tensor:
    """SiLU(x / max(||x||, 1e-12) * sqrt(C) * weight), the norm over channels: the VAE's norm and activation.

    Shapes and types: x [B, C, Y, X] or [B, C, T, Y, X], float32/bfloat16/float16/float64; weight [C], any of these.
    Returns x's shape and dtype, and its memory format where x is dense (channels-last stays channels-last). B or any
    of T, Y, X may be 0.
    Numerics: everything in float32 (float64 stays float64), rounded once to x.dtype. A NaN makes its own pixel's
    channels NaN, no other pixel. Where ||x|| <= 1e-12 the norm is held constant in the gradient.
    Raises: TypeError for a dtype, ValueError for a shape or device.
    Source: Wan2.1 at 9737cba, modules/vae.py, RMS_norm followed by SiLU.
    """
    check_tensor(NAME, "x", x)
    check_tensor(NAME, "weight", weight)
    if x.dim() not in (4, 5):
        raise ValueError(f"[{NAME}] x must be [B, C, Y, X] or [B, C, T, Y, X], got shape {tuple(x.shape)}")
    check_shape(NAME, "weight", weight, x.shape[1:2])
    check_same_device(NAME, x=x, weight=weight)
    return OP(x, weight, bool(apply_silu))
