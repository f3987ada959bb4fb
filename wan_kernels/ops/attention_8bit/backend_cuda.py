"""attention_8bit through the C library's sm_90a kernel: int8 and float8 on the tensor cores, loads, scores, softmax and
values at once. Experimental until a hardware record shows that it passes: it runs only when forced.

The arithmetic is the triton backend's: exact dots, probabilities in float8 over its whole range, a tile of 128 keys
summed with the 13 bits of the tensor cores, tiles and totals in float32.
"""

import torch
from torch import Tensor

from wan_kernels import native, records
from wan_kernels.common.checks import short
from wan_kernels.common.cpu import DTYPES
from wan_kernels.common.cuda import Block
from wan_kernels.common.triton import Expectation
from wan_kernels.dispatch import register_backend
from wan_kernels.ops.attention_8bit.reference import scale_of

NAME = "attention_8bit"
WIDTH = 128
TILE_KEYS = 128
ALIGNMENT_BYTES = 16
# A warpgroup that loads and two that multiply, which get what registers the first gives back; 16 KiB of queries and of
# each stage's keys and values, and where they begin. Shuffles: two for each of the two maxima of a tile, whose code is
# there twice, the rest at the ends; no value but those changes threads.
BLOCK = Block(
    Expectation(
        max_registers=168,
        mnemonics=("IGMMA", "QGMMA", "UTMALDG"),
        forbidden=("LDGSTS", "PRMT"),
        limits=(("SHFL", 17),),
    ),
    num_warps=12,
    shared_bytes=149504,
)


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
    num_samples, num_heads, num_queries, width = q.shape
    out = torch.empty(num_samples, num_queries, num_heads, width, dtype=out_dtype, device=q.device)
    lse = torch.empty(num_samples, num_heads, num_queries, device=q.device)
    native.library().attention_8bit(
        out,
        lse,
        aligned(q),
        q_scale.contiguous(),
        aligned(k),
        k_scale.contiguous(),
        k_mean.contiguous(),
        aligned(v),
        v_scale.contiguous(),
        v_mean.contiguous(),
        None if k_lengths is None else k_lengths.contiguous(),
        None if prior_out is None else prior_out.contiguous(),
        None if prior_lse is None else prior_lse.contiguous(),
        q_tokens_per_scale,
        k_tokens_per_scale,
        v_tokens_per_scale,
        scale_of(q, scale),
    )
    return out, lse


def aligned(codes: Tensor) -> Tensor:
    """Codes where the copy engine can read them: on 16 bytes, as allocations lie."""
    return codes if codes.data_ptr() % ALIGNMENT_BYTES == 0 else codes.clone()


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
    if not q.is_cuda:
        return f"needs tensors on CUDA, got {q.device}"
    if q.shape[3] != WIDTH:
        return f"has a kernel for heads of {WIDTH}, got {q.shape[3]}"
    if v.dtype is not torch.float8_e4m3fn:
        return f"multiplies float8 values only, got {short(v.dtype)}"
    if not is_permuted:
        return "needs v permuted, as quantize_values(is_permuted=True) leaves it"
    if v_tokens_per_scale:
        return f"needs one scale for each channel of v, got one for each {v_tokens_per_scale} tokens"
    if k_tokens_per_scale % TILE_KEYS:
        return f"needs a scale of k for whole tiles of {TILE_KEYS} tokens, got one for each {k_tokens_per_scale}"
    if scale is not None and scale < 0:
        return f"takes the largest dot of a row for its largest logit: needs a scale of 0 or more, got {scale}"
    for dtype in (out_dtype, out_dtype if prior_out is None else prior_out.dtype):
        if dtype not in DTYPES:
            return f"has no {short(dtype)} output"
    return None


register_backend(
    NAME,
    "cuda",
    forward=forward,
    available=native.cuda_unavailable,
    reject=reject,
    unproven=lambda: records.unproven(NAME, "cuda"),
)
