"""attention_8bit through the C library: int8 values, probabilities in 8 bits of each tile's largest."""

import torch
from torch import Tensor

from wan_kernels import native
from wan_kernels.common.cpu import DTYPES, dense_rows
from wan_kernels.dispatch import register_backend
from wan_kernels.ops.attention_8bit.reference import scale_of

WIDTH_STEP = 16


def forward(
    q: Tensor,
    q_scale: Tensor,
    k: Tensor,
    k_scale: Tensor,
    k_mean: Tensor,
    v: Tensor,
    v_scale: Tensor,
    v_mean: Tensor,
    out_dtype: torch.dtype,
    k_lengths: Tensor | None,
    prior_out: Tensor | None,
    prior_lse: Tensor | None,
    q_tokens_per_scale: int,
    k_tokens_per_scale: int,
    v_tokens_per_scale: int,
    is_permuted: bool,
    scale: float | None,
) -> tuple[Tensor, Tensor]:
    num_samples, num_heads, num_queries, head_width = q.shape
    out = torch.empty(num_samples, num_queries, num_heads, head_width, dtype=out_dtype)
    lse = torch.empty(num_samples, num_heads, num_queries)
    native.library().attention_8bit(
        out,
        lse,
        q,
        q_scale.contiguous(),
        k,
        k_scale.contiguous(),
        k_mean.contiguous(),
        v,
        v_scale.contiguous(),
        v_mean.contiguous(),
        None if k_lengths is None else k_lengths.contiguous(),
        None if prior_out is None else dense_rows(prior_out),
        None if prior_lse is None else prior_lse.contiguous(),
        q_tokens_per_scale,
        k_tokens_per_scale,
        v_tokens_per_scale,
        scale_of(q, scale),
    )
    return out, lse


def reject(
    q: Tensor,
    q_scale: Tensor,
    k: Tensor,
    k_scale: Tensor,
    k_mean: Tensor,
    v: Tensor,
    v_scale: Tensor,
    v_mean: Tensor,
    out_dtype: torch.dtype,
    k_lengths: Tensor | None,
    prior_out: Tensor | None,
    prior_lse: Tensor | None,
    q_tokens_per_scale: int,
    k_tokens_per_scale: int,
    v_tokens_per_scale: int,
    is_permuted: bool,
    scale: float | None,
) -> str | None:
    if not q.is_cpu:
        return f"needs tensors on the CPU, got {q.device}"
    if v.dtype is not torch.int8:
        return "multiplies int8 values only"
    if is_permuted:
        return "takes values in order only"
    if q.shape[-1] % WIDTH_STEP:
        return f"wants H to be a multiple of {WIDTH_STEP}, got {q.shape[-1]}"
    for dtype in (out_dtype, out_dtype if prior_out is None else prior_out.dtype):
        if dtype not in DTYPES:
            return f"has no {str(dtype).removeprefix('torch.')} output"
    return None


register_backend("attention_8bit", "cpu", forward=forward, available=native.cpu_unavailable, reject=reject)
