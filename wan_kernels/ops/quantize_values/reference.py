"""quantize_values in plain PyTorch: the specification.

Rounding points: v is read in promote_types(v.dtype, float32); see common/quantize.py.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from wan_kernels.common.cost import Cost, num_bytes
from wan_kernels.common.quantize import VALUES_ORDER, VALUES_TILE, quantize


def forward(
    v: Tensor, dtype: torch.dtype, tokens_per_scale: int | None, is_smooth: bool, is_permuted: bool
) -> tuple[Tensor, Tensor, Tensor]:
    length = v.shape[1]
    y_BNHL = v.to(torch.promote_types(v.dtype, torch.float32)).permute(0, 2, 3, 1).contiguous()
    total_BNH = y_BNHL.sum(-1) if is_smooth else y_BNHL.new_zeros(y_BNHL.shape[:-1])
    mean_BNH = total_BNH / max(length, 1)
    y_BNHP = F.pad(y_BNHL - mean_BNH.unsqueeze(-1), (0, num_positions(length) - length))
    codes, scales = quantize_channels(permuted(y_BNHP) if is_permuted else y_BNHP, dtype, tokens_per_scale)
    return codes, scales, mean_BNH


def quantize_channels(y_BNHP: Tensor, dtype: torch.dtype, tokens_per_scale: int | None) -> tuple[Tensor, Tensor]:
    """Codes [B, N, H, P], and scales [B, N, num_blocks, H] for blocks of tokens, the last filled up with zeros."""
    num_tokens = y_BNHP.shape[-1]
    per_scale = tokens_per_scale or max(num_tokens, VALUES_TILE)
    num_scales = num_blocks(num_tokens, per_scale)
    whole = F.pad(y_BNHP, (0, num_scales * per_scale - num_tokens))
    codes, scales = quantize(whole.unflatten(-1, (num_scales, per_scale)), dtype)
    return codes.flatten(-2)[..., :num_tokens].contiguous(), scales.transpose(-1, -2).contiguous()


def num_blocks(length: int, tokens_per_scale: int | None) -> int:
    """Scales of a channel: none for no tokens."""
    return -(-length // tokens_per_scale) if tokens_per_scale else min(length, 1)


def num_positions(length: int) -> int:
    """P: whole tiles of tokens."""
    return -(-length // VALUES_TILE) * VALUES_TILE


def permuted(y_BNHP: Tensor) -> Tensor:
    """The tokens of each 16 in VALUES_ORDER."""
    groups = y_BNHP.unflatten(-1, (y_BNHP.shape[-1] // len(VALUES_ORDER), len(VALUES_ORDER)))
    return groups[..., list(VALUES_ORDER)].flatten(-2)


def dequantized(outputs: tuple[Tensor, Tensor, Tensor], args: Mapping[str, Any]) -> Tensor:
    """What the codes stand for, mean included: [B, N, H, L]."""
    codes, scales_BNKH, mean_BNH = outputs
    num_codes = codes.shape[-1]
    scales_BNHP = scales_BNKH.mT.repeat_interleave(args["tokens_per_scale"] or num_codes, dim=-1)[..., :num_codes]
    y_BNHP = codes.to(mean_BNH.dtype) * scales_BNHP + mean_BNH.unsqueeze(-1)
    if args["is_permuted"]:
        groups = y_BNHP.unflatten(-1, (y_BNHP.shape[-1] // len(VALUES_ORDER), len(VALUES_ORDER)))
        places = sorted(range(len(VALUES_ORDER)), key=VALUES_ORDER.__getitem__)
        y_BNHP = groups[..., places].flatten(-2)
    return y_BNHP[..., : args["v"].shape[1]]


def cost(v: Tensor, dtype: torch.dtype, tokens_per_scale: int | None, is_smooth: bool, is_permuted: bool) -> Cost:
    """As quantize_rows, and 2 operations per element for the mean and its difference. v is read twice where its mean is
    taken off or a scale is that of all tokens: no code can be made before all of it was seen."""
    num_samples, length, num_heads, head_width = v.shape
    num_channels = num_samples * num_heads * head_width
    num_reads = 2 if is_smooth or tokens_per_scale is None else 1
    written = num_channels * (num_positions(length) + 4 * num_blocks(length, tokens_per_scale) + 4)
    return Cost((4 + 2 * is_smooth) * v.numel(), num_reads * num_bytes(v) + written)
