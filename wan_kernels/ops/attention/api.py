"""The public function and its op."""

from typing import Literal, overload

import torch
from torch import Tensor

from wan_kernels.common.checks import check_dim, check_same_device, check_shape, check_tensor, short
from wan_kernels.define_op import define_op
from wan_kernels.ops.attention import reference

NAME = "attention"
OP = define_op(
    "attention(Tensor q, Tensor k, Tensor v, Tensor? k_lengths=None, float? scale=None) -> (Tensor, Tensor)", reference
)


@overload
def attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    k_lengths: Tensor | None = ...,
    scale: float | None = ...,
    return_lse: Literal[False] = ...,
) -> Tensor: ...


@overload
def attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    k_lengths: Tensor | None = ...,
    scale: float | None = ...,
    return_lse: Literal[True],
) -> tuple[Tensor, Tensor]: ...


def attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    k_lengths: Tensor | None = None,
    scale: float | None = None,
    return_lse: bool = False,
) -> Tensor | tuple[Tensor, Tensor]:
    """softmax(q k^T * scale) v per head, every query seeing every valid key; lse = log(sum(exp(q k^T * scale))).

    Shapes and types: q [B, L, N, H]; k, v [B, S, N, H] in q.dtype, S >= 1; float32/bfloat16/float16/float64; k_lengths
    [B] int32/int64: how many keys of each sample are valid, None for all. Returns a contiguous [B, L, N, H] in q.dtype;
    with return_lse also lse [B, N, L] float32 (float64 for float64). B or L may be 0.
    Units and ranges: scale defaults to H**-0.5; k_lengths in [1, S], not checked. lse is a natural logarithm.
    Numerics: products accumulate and the softmax runs in float32 (float64 stays float64); fused backends round the
    probabilities to q.dtype before the product with v; rounded once to q.dtype. A NaN in q makes its row NaN; a NaN in
    a valid key or value makes its head NaN; what lies beyond k_lengths is never seen.
    Raises: TypeError for a dtype, ValueError for a shape or device.
    Source: arXiv 1706.03762, eq. 1; log-sum-exp as arXiv 2205.14135, algorithm 1.
    """
    check_tensor(NAME, "q", q)
    check_dim(NAME, "q", q, 4, "[B, L, N, H]")
    for name, value in (("k", k), ("v", v)):
        check_tensor(NAME, name, value)
        if value.dtype != q.dtype:
            raise TypeError(f"[{NAME}] {name} must be {short(q.dtype)} as q is, got {short(value.dtype)}")
        check_shape(NAME, name, value, (q.shape[0], None, *q.shape[2:]))
    check_shape(NAME, "v", v, k.shape)
    if k.shape[1] < 1:
        raise ValueError(f"[{NAME}] k must have at least one key, got shape {tuple(k.shape)}")
    if k_lengths is not None:
        check_tensor(NAME, "k_lengths", k_lengths, (torch.int32, torch.int64))
        check_shape(NAME, "k_lengths", k_lengths, q.shape[:1])
    check_same_device(NAME, q=q, k=k, v=v, k_lengths=k_lengths)
    out, lse = OP(q, k, v, k_lengths, None if scale is None else float(scale))
    return (out, lse) if return_lse else out
