"""What the rooms of causal convolutions have in common: what they take, and the shape of what they give.

T frames give T / stride_t: the kernel also sees the kt - stride_t frames before them.
"""

from collections.abc import Sequence

from torch import Tensor

from wan_kernels.common.checks import check_dim, check_same_device, check_shape, check_tensor, short

Stride = tuple[int, int, int] | tuple[int, ...]
Padding = tuple[int, int, int, int]


def out_shape(x: Tensor, weight: Tensor, stride: Sequence[int], padding: Sequence[int]) -> tuple[int, ...]:
    """[B, O, T', Y', X'] from x [B, C, T, Y, X] and weight [O, C, kt, ky, kx]."""
    top, bottom, left, right = padding
    sides = (x.shape[2] + weight.shape[2] - stride[0], x.shape[3] + top + bottom, x.shape[4] + left + right)
    steps = zip(sides, weight.shape[2:], stride, strict=True)
    return x.shape[0], weight.shape[0], *((side - taps) // step + 1 for side, taps, step in steps)


def check_conv3d(
    op: str, x: Tensor, weight: Tensor, bias: Tensor | None, stride: Sequence[int], padding: Sequence[int]
) -> None:
    """x, weight and bias of one dtype and device that fit each other, the stride and the padding."""
    check_tensor(op, "x", x)
    check_dim(op, "x", x, 5, "[B, C, T, Y, X]")
    check_dim(op, "weight", weight, 5, "[O, C, kt, ky, kx]")
    check_shape(op, "weight", weight, (None, x.shape[1], None, None, None))
    check_like_x(op, x, weight=weight, bias=bias)
    check_window(op, x, weight, stride, padding)
    if bias is not None:
        check_shape(op, "bias", bias, weight.shape[:1])


def check_like_x(op: str, x: Tensor, **tensors: Tensor | None) -> None:
    """In x's dtype and on its device."""
    for name, value in tensors.items():
        if value is not None and value.dtype != x.dtype:
            raise TypeError(f"[{op}] {name} must be {short(x.dtype)} as x is, got {short(value.dtype)}")
    check_same_device(op, x=x, **tensors)


def check_window(op: str, x: Tensor, weight: Tensor, stride: Sequence[int], padding: Sequence[int]) -> None:
    """A stride and a padding that the kernel and the frames allow."""
    if len(stride) != 3 or min(stride) < 1 or stride[0] > weight.shape[2]:
        raise ValueError(
            f"[{op}] stride must be (t, y, x), each at least 1 and t at most kt = {weight.shape[2]}, got {stride}"
        )
    if len(padding) != 4 or min(padding) < 0:
        raise ValueError(f"[{op}] padding must be (top, bottom, left, right), none negative, got {padding}")
    if x.shape[2] < stride[0]:
        raise ValueError(f"[{op}] x must have at least {stride[0]} frames, got {x.shape[2]}")
    padded = (x.shape[3] + padding[0] + padding[1], x.shape[4] + padding[2] + padding[3])
    if padded[0] < weight.shape[3] or padded[1] < weight.shape[4]:
        raise ValueError(
            f"[{op}] padded frames must be at least the kernel's {tuple(weight.shape[3:])}, got {tuple(padded)}"
        )
