"""The public function and its op."""

from typing import Literal, overload

from torch import Tensor

from wan_kernels.common.checks import check_shape
from wan_kernels.common.conv3d import Padding, Stride, check_conv3d, check_like_x
from wan_kernels.define_op import define_op
from wan_kernels.ops.causal_conv3d import reference

NAME = "causal_conv3d"
OP = define_op(
    "causal_conv3d(Tensor x, Tensor weight, Tensor? bias=None, Tensor? cache=None, int[] stride=[1, 1, 1], "
    "int[] padding=[0, 0, 0, 0], bool return_cache=False) -> (Tensor, Tensor)",
    reference,
)


@overload
def causal_conv3d(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    cache: Tensor | None = None,
    *,
    stride: Stride = ...,
    padding: Padding = ...,
    return_cache: Literal[False] = ...,
) -> Tensor: ...


@overload
def causal_conv3d(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    cache: Tensor | None = None,
    *,
    stride: Stride = ...,
    padding: Padding = ...,
    return_cache: Literal[True],
) -> tuple[Tensor, Tensor]: ...


def causal_conv3d(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    cache: Tensor | None = None,
    *,
    stride: Stride = (1, 1, 1),
    padding: Padding = (0, 0, 0, 0),
    return_cache: bool = False,
) -> Tensor | tuple[Tensor, Tensor]:
    """conv3d(cat(cache, x), weight) + bias: a convolution that sees the past, never the future.

    The history is h = kt - stride_t frames: with it, T input frames give T / stride_t output frames, and a video fed in
    chunks (each a multiple of stride_t frames, new_cache handed on) gives what one pass gives.

    Shapes and types: x [B, C, T, Y, X], float32/bfloat16/float16/float64; weight [O, C, kt, ky, kx] and bias [O] in
    x.dtype; cache [B, C, h, Y, X] in x.dtype, the frames before x, None for h frames of zeros; stride (t, y, x) with
    stride_t <= kt; padding: rows of zeros at (top, bottom, left, right). Returns y [B, O, T', Y', X'], channels-last
    where x is channels-last and contiguous otherwise; with return_cache also new_cache [B, C, h, Y, X]: a copy of the
    last h frames of (cache, x). B may be 0.
    Numerics: accumulated in float32 or wider, rounded once to x.dtype. NaN and infinity reach the outputs whose window
    holds them (`cpu`, channels-last: also their neighbours; docs/numerics.md).
    Raises: TypeError for a dtype, ValueError for a shape, device, stride, padding, too few frames, or a chunk to be
    continued whose T is not a multiple of stride_t.
    Source: arXiv 2503.20314, section 4.1; Wan2.1 at 9737cba, modules/vae.py, CausalConv3d and its feature cache.
    """
    check_conv3d(NAME, x, weight, bias, stride, padding)
    if return_cache and x.shape[2] % stride[0]:
        raise ValueError(f"[{NAME}] a continued chunk must have a multiple of {stride[0]} frames, got {x.shape[2]}")
    check_like_x(NAME, x, cache=cache)
    if cache is not None:
        check_shape(NAME, "cache", cache, (*x.shape[:2], weight.shape[2] - stride[0], *x.shape[3:]))
    y, new_cache = OP(x, weight, bias, cache, list(stride), list(padding), bool(return_cache))
    return (y, new_cache) if return_cache else y
