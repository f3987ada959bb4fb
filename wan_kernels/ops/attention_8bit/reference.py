"""attention_8bit in plain PyTorch: the specification. Memory grows with L * S: a truth for tests, not for real lengths.

Rounding points: none but the last. What the codes stand for, logits, softmax and the product with v are in
promote_types(q_scale.dtype, float32); out is rounded once to out_dtype.
"""

import torch
from torch import Tensor

from wan_kernels.common.cost import Cost, num_bytes
from wan_kernels.common.quantize import VALUES_ORDER


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
    compute = torch.promote_types(q_scale.dtype, torch.float32)
    num_keys = k.shape[2]
    q_BNLH = dequantized_heads(q, q_scale, q_tokens_per_scale, compute)
    k_BNSH = dequantized_heads(k, k_scale, k_tokens_per_scale, compute) + k_mean.to(compute).unsqueeze(2)
    v_BNSH = dequantized_values(v, v_scale, v_tokens_per_scale, is_permuted, compute)[:, :, :num_keys]
    v_BNSH = v_BNSH + v_mean.to(compute).unsqueeze(2)
    if k_lengths is not None:
        is_hidden = hidden_keys(k_lengths, num_keys).mT
        k_BNSH, v_BNSH = k_BNSH.masked_fill(is_hidden, 0), v_BNSH.masked_fill(is_hidden, 0)
    logits = q_BNLH @ k_BNSH.mT * scale_of(q, scale)
    if k_lengths is not None:
        logits = logits.masked_fill(hidden_keys(k_lengths, num_keys), float("-inf"))
    lse = logits.logsumexp(-1)
    # Where no key may be seen there is nothing to weigh, and -inf - -inf is NaN.
    weights = torch.exp(logits - lse.masked_fill(lse == float("-inf"), 0).unsqueeze(-1))
    out_BLNH = (weights @ v_BNSH).transpose(1, 2)
    if prior_out is not None and prior_lse is not None:
        out_BLNH, lse = merged(out_BLNH, lse, prior_out.to(compute), prior_lse.to(compute))
    return out_BLNH.contiguous().to(out_dtype), lse.contiguous()


def dequantized_heads(codes: Tensor, scales: Tensor, tokens_per_scale: int, compute: torch.dtype) -> Tensor:
    """What codes [B, N, L, H] stand for, their mean left out."""
    per_token = scales.to(compute).repeat_interleave(tokens_per_scale, dim=2)[:, :, : codes.shape[2]]
    return codes.to(compute) * per_token.unsqueeze(-1)


def dequantized_values(
    codes: Tensor, scales: Tensor, tokens_per_scale: int, is_permuted: bool, compute: torch.dtype
) -> Tensor:
    """What codes [B, N, H, P] stand for, their mean left out, tokens in order: [B, N, P, H]."""
    values = unpermuted(codes.to(compute)) if is_permuted else codes.to(compute)
    per_token = scales.to(compute).repeat_interleave(tokens_per_scale or codes.shape[3], dim=2)[:, :, : codes.shape[3]]
    return values.mT * per_token


def unpermuted(values: Tensor) -> Tensor:
    """The tokens of each 16 back in order."""
    places = [VALUES_ORDER.index(token) for token in range(len(VALUES_ORDER))]
    groups = values.unflatten(-1, (values.shape[-1] // len(VALUES_ORDER), len(VALUES_ORDER)))
    return groups[..., places].flatten(-2)


def hidden_keys(k_lengths: Tensor, num_keys: int) -> Tensor:
    """True where a key may not be seen: [B, 1, 1, S]."""
    return (torch.arange(num_keys, device=k_lengths.device) >= k_lengths[:, None])[:, None, None]


def merged(out_BLNH: Tensor, lse: Tensor, other_BLNH: Tensor, other_lse: Tensor) -> tuple[Tensor, Tensor]:
    """Attention to the keys of both."""
    total = torch.logaddexp(lse, other_lse)
    finite = total.masked_fill(total == float("-inf"), 0)
    share, other_share = (torch.exp(each - finite).mT.unsqueeze(-1) for each in (lse, other_lse))
    return out_BLNH * share + other_BLNH * other_share, total


def scale_of(q: Tensor, scale: float | None) -> float:
    return q.shape[-1] ** -0.5 if scale is None else scale


def cost(
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
) -> Cost:
    """Two products of L x S x H per head. Counts every key: the lengths are data."""
    flops = 4 * q.numel() * k.shape[2]
    read = num_bytes(q, q_scale, k, k_scale, k_mean, v, v_scale, v_mean, k_lengths, prior_out, prior_lse)
    num_rows = q.numel() // max(q.shape[-1], 1)
    return Cost(flops, read + q.numel() * out_dtype.itemsize + 4 * num_rows)
