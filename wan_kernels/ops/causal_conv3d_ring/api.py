"""The public function and its op."""

from torch import Tensor

from wan_kernels.common.checks import check_shape
from wan_kernels.common.conv3d import Padding, Stride, check_conv3d, check_like_x, out_shape
from wan_kernels.define_op import define_op
from wan_kernels.ops.causal_conv3d_ring import reference

NAME = "causal_conv3d_ring"
OP = define_op(
    "causal_conv3d_ring(Tensor x, Tensor weight, Tensor? bias, Tensor(a!) ring, int position, Tensor? norm_weight, "
    "Tensor? residual, int[] stride, int[] padding) -> Tensor",
    reference,
    is_inference_only=True,
)


def causal_conv3d_ring(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    ring: Tensor,
    position: int,
    *,
    norm_weight: Tensor | None = None,
    residual: Tensor | None = None,
    stride: Stride = (1, 1, 1),
    padding: Padding = (0, 0, 0, 0),
) -> Tensor:
    """The next T frames of a streamed causal_conv3d, with the norm before it and the sum after it.

    y = conv3d(norm(cat(past, x)), weight) + bias + residual, where norm is channel_rms_norm_silu by norm_weight, or
    nothing, and past the h = kt - stride_t frames before x. Frames are counted from the first of the stream, and frame
    f lies in slot f mod R of the ring; frames before the first are zeros. Then the last min(T, h) frames of x are
    written to their slots, and the caller goes on at position + T. A ring needs no first values, and slots of frames
    older than those h are neither read nor written.

    Shapes and types: x [B, C, T, Y, X], float32/bfloat16/float16/float64; weight [O, C, kt, ky, kx], bias [O],
    norm_weight [C], all in x.dtype; ring [B, C, R, Y, X] in x.dtype, R >= h, written in place; position >= 0, the
    number of frames before x; residual [B, O, T', Y', X'] in x.dtype; stride (t, y, x), stride_t <= kt, T a multiple
    of it; padding: rows of zeros at (top, bottom, left, right), after the norm. Returns [B, O, T', Y', X'],
    channels-last where x is. B may be 0.
    Numerics: as causal_conv3d; between norm, convolution and sum rounded to x.dtype or not at all (`cpu`: not, for the
    kernels 3 x 3 and in float32).
    Raises: TypeError for a dtype, ValueError for a shape, device, stride, padding, position, or T that is no multiple
    of stride_t; RuntimeError when differentiated: causal_conv3d has a backward.
    Source: Wan2.1 at 9737cba, modules/vae.py, ResidualBlock and its feature cache.
    """
    check_conv3d(NAME, x, weight, bias, stride, padding)
    if x.shape[2] % stride[0]:
        raise ValueError(f"[{NAME}] x must have a multiple of {stride[0]} frames, got {x.shape[2]}")
    if position < 0:
        raise ValueError(f"[{NAME}] position must be the number of frames before x, got {position}")
    check_like_x(NAME, x, ring=ring, norm_weight=norm_weight, residual=residual)
    num_history = weight.shape[2] - stride[0]
    check_shape(NAME, "ring", ring, (*x.shape[:2], None, *x.shape[3:]))
    if ring.shape[2] < num_history:
        raise ValueError(f"[{NAME}] ring must have at least {num_history} frames, got {ring.shape[2]}")
    if norm_weight is not None:
        check_shape(NAME, "norm_weight", norm_weight, x.shape[1:2])
    if residual is not None:
        check_shape(NAME, "residual", residual, out_shape(x, weight, stride, padding))
    return OP(x, weight, bias, ring, position, norm_weight, residual, list(stride), list(padding))
