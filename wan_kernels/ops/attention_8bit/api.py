"""The public function and its op."""

from typing import Literal, overload

import torch
from torch import Tensor

from wan_kernels.common.checks import (
    CODES,
    FLOATING,
    INTEGERS,
    check_dim,
    check_same_device,
    check_shape,
    check_tensor,
    short,
)
from wan_kernels.common.quantize import VALUES_TILE
from wan_kernels.define_op import define_op
from wan_kernels.ops.attention_8bit import reference

NAME = "attention_8bit"
OP = define_op(
    "attention_8bit(Tensor q, Tensor q_scale, Tensor k, Tensor k_scale, Tensor k_mean, Tensor v, Tensor v_scale, "
    "Tensor v_mean, ScalarType out_dtype, Tensor? k_lengths=None, Tensor? prior_out=None, Tensor? prior_lse=None, "
    "SymInt q_tokens_per_scale=1, SymInt k_tokens_per_scale=1, SymInt v_tokens_per_scale=0, bool is_permuted=False, "
    "float? scale=None) -> (Tensor, Tensor)",
    reference,
    is_inference_only=True,
)

Codes = tuple[Tensor, Tensor, Tensor]


@overload
def attention_8bit(
    q: Codes,
    k: Codes,
    v: Codes,
    *,
    q_tokens_per_scale: int = ...,
    k_tokens_per_scale: int = ...,
    v_tokens_per_scale: int | None = ...,
    is_permuted: bool = ...,
    k_lengths: Tensor | None = ...,
    scale: float | None = ...,
    out_dtype: torch.dtype = ...,
    prior: tuple[Tensor, Tensor] | None = ...,
    return_lse: Literal[False] = ...,
) -> Tensor: ...


@overload
def attention_8bit(
    q: Codes,
    k: Codes,
    v: Codes,
    *,
    q_tokens_per_scale: int = ...,
    k_tokens_per_scale: int = ...,
    v_tokens_per_scale: int | None = ...,
    is_permuted: bool = ...,
    k_lengths: Tensor | None = ...,
    scale: float | None = ...,
    out_dtype: torch.dtype = ...,
    prior: tuple[Tensor, Tensor] | None = ...,
    return_lse: Literal[True],
) -> tuple[Tensor, Tensor]: ...


def attention_8bit(
    q: Codes,
    k: Codes,
    v: Codes,
    *,
    q_tokens_per_scale: int = 1,
    k_tokens_per_scale: int = 1,
    v_tokens_per_scale: int | None = None,
    is_permuted: bool = False,
    k_lengths: Tensor | None = None,
    scale: float | None = None,
    out_dtype: torch.dtype = torch.bfloat16,
    prior: tuple[Tensor, Tensor] | None = None,
    return_lse: bool = False,
) -> Tensor | tuple[Tensor, Tensor]:
    """softmax(q k^T * scale) v per head on 8-bit codes; lse = log(sum(exp(q k^T * scale))).

    q, k and v come as their quantisers return them: (codes, scales, mean) of `rms_norm_rope_8bit` or `quantize_heads`
    for q and k, of `quantize_values` for v, and the options that these were called with. They stand for
    codes * scales + mean; q must have been quantised without a mean, and the one that comes with it is not read.
    `quantize_qkv` makes all three from plain tensors.

    Shapes and types: q codes [B, N, L, H] int8, scales [B, N, ceil(L / q_tokens_per_scale)]; k codes [B, N, S, H] int8,
    S >= 1, scales [B, N, ceil(S / k_tokens_per_scale)], mean [B, N, H]; v codes [B, N, H, P] int8 or float8_e4m3fn, P
    being S rounded up to a multiple of 128, scales [B, N, ceil(P / v_tokens_per_scale), H] (one block where that is
    None), mean [B, N, H]; codes contiguous, scales and means float32; k_lengths [B] int32/int64: how many keys of each
    sample are valid, None for all; prior: (out [B, L, N, H] in any floating dtype, lse [B, N, L] float32) of the same
    queries over other keys, to be merged with. Returns a contiguous [B, L, N, H] in out_dtype; with return_lse also lse
    [B, N, L] float32. B or L may be 0.
    Units and ranges: scale defaults to H**-0.5; k_lengths in [0, S], not checked. lse is a natural logarithm, that of
    the logits with k's mean in them, so that parts whose keys had different means taken off merge; with a prior it is
    that of all keys. Where no key may be seen out is 0 and lse -inf.
    Numerics: q k^T is exact in integers. Probabilities are rounded to 8 bits, over the whole range of their type,
    before the product with v, whose sum over a tile of keys is added up in float32; their own sum is that of the
    unrounded ones. What that costs is stated in `model.py`, which does the same arithmetic step by step. A scale of
    q that is not finite makes its rows NaN, one of k its head, one of v its channel; what lies beyond k_lengths is
    never seen, apart from what it did to the scale of a block it shares.
    Raises: TypeError for a dtype, ValueError for a shape or device; RuntimeError when differentiated.
    Source: arXiv 2410.02367 and 2411.10958 (8-bit codes, smoothing, two-level sums); log-sum-exp as arXiv 2205.14135.
    """
    check_heads("q", q, q_tokens_per_scale)
    check_heads("k", k, k_tokens_per_scale)
    (q_codes, q_scale, _), (k_codes, k_scale, k_mean), (v_codes, v_scale, v_mean) = q, k, v
    num_samples, num_heads, num_queries, head_width = q_codes.shape
    check_shape(NAME, "k codes", k_codes, (num_samples, num_heads, None, head_width))
    num_keys = k_codes.shape[2]
    if num_keys < 1:
        raise ValueError(f"[{NAME}] k must have at least one key, got shape {tuple(k_codes.shape)}")
    check_tensor(NAME, "k mean", k_mean, (torch.float32,))
    check_shape(NAME, "k mean", k_mean, (num_samples, num_heads, head_width))
    check_values(v, (num_samples, num_heads, head_width), num_keys, v_tokens_per_scale)
    if k_lengths is not None:
        check_tensor(NAME, "k_lengths", k_lengths, INTEGERS)
        check_shape(NAME, "k_lengths", k_lengths, (num_samples,))
    if out_dtype not in FLOATING:
        raise TypeError(f"[{NAME}] out_dtype must be one of {', '.join(map(short, FLOATING))}, got {out_dtype}")
    prior_out, prior_lse = (None, None) if prior is None else prior
    if prior_out is not None and prior_lse is not None:
        check_tensor(NAME, "prior out", prior_out)
        check_shape(NAME, "prior out", prior_out, (num_samples, num_queries, num_heads, head_width))
        check_tensor(NAME, "prior lse", prior_lse, (torch.float32,))
        check_shape(NAME, "prior lse", prior_lse, (num_samples, num_heads, num_queries))
    tensors = {"k": k_codes, "k_scale": k_scale, "k_mean": k_mean, "v": v_codes, "v_scale": v_scale, "v_mean": v_mean}
    priors = {"k_lengths": k_lengths, "prior_out": prior_out, "prior_lse": prior_lse}
    check_same_device(NAME, q=q_codes, q_scale=q_scale, **tensors, **priors)
    blocks = (q_tokens_per_scale, k_tokens_per_scale, v_tokens_per_scale or 0)
    codes = (q_codes, q_scale, k_codes, k_scale, k_mean, v_codes, v_scale, v_mean)
    out, lse = OP(
        *codes,
        out_dtype,
        k_lengths,
        prior_out,
        prior_lse,
        *blocks,
        bool(is_permuted),
        None if scale is None else float(scale),
    )
    return (out, lse) if return_lse else out


def check_heads(name: str, heads: Codes, tokens_per_scale: int) -> None:
    """Codes and scales of q or k."""
    if tokens_per_scale < 1:
        raise ValueError(f"[{NAME}] {name}_tokens_per_scale must be at least 1, got {tokens_per_scale}")
    codes, scales, _ = heads
    check_tensor(NAME, f"{name} codes", codes, (torch.int8,))
    check_dim(NAME, f"{name} codes", codes, 4, "[B, N, L, H]")
    check_contiguous(f"{name} codes", codes)
    check_tensor(NAME, f"{name} scales", scales, (torch.float32,))
    num_blocks = -(-codes.shape[2] // tokens_per_scale)
    check_shape(NAME, f"{name} scales", scales, (*codes.shape[:2], num_blocks))


def check_values(v: Codes, heads: tuple[int, int, int], num_keys: int, tokens_per_scale: int | None) -> None:
    """Codes, scales and mean of v for [B, N, H] `heads`."""
    if tokens_per_scale is not None and (tokens_per_scale < 1 or tokens_per_scale % VALUES_TILE):
        raise ValueError(f"[{NAME}] v_tokens_per_scale must be a multiple of {VALUES_TILE}, got {tokens_per_scale}")
    codes, scales, mean = v
    num_positions = -(-num_keys // VALUES_TILE) * VALUES_TILE
    check_tensor(NAME, "v codes", codes, CODES)
    check_shape(NAME, "v codes", codes, (*heads, num_positions))
    check_contiguous("v codes", codes)
    num_blocks = 1 if tokens_per_scale is None else -(-num_positions // tokens_per_scale)
    check_tensor(NAME, "v scales", scales, (torch.float32,))
    check_shape(NAME, "v scales", scales, (*heads[:2], num_blocks, heads[2]))
    check_tensor(NAME, "v mean", mean, (torch.float32,))
    check_shape(NAME, "v mean", mean, heads)


def check_contiguous(name: str, codes: Tensor) -> None:
    if not codes.is_contiguous():
        raise ValueError(f"[{NAME}] {name} must be contiguous, got strides {codes.stride()}")
