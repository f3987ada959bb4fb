"""The arithmetic of the fast backends, step by step in plain PyTorch: what 8 bits cost where no bug adds to it.

A backend may not be further from attention in float than 1.15 times this, with the same codes and the same Arithmetic.
Exact where kernels are exact (integer sums), rounded where they round (probabilities, sums of float8 products); float32
elsewhere, in another order than theirs.

Legend: B batch, N heads, L queries, S keys, H head width; T keys of one tile.
"""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from wan_kernels.common.quantize import LIMITS
from wan_kernels.ops.attention_8bit.reference import hidden_keys, merged, scale_of, unpermuted

FP8 = torch.float8_e4m3fn
LOG2_E = 1.4426950408889634
# Products of one float8 matrix instruction: their sum joins the accumulator in one rounding.
WGMMA_DEPTH = 32


@dataclass(frozen=True)
class Arithmetic:
    """tile: keys whose probabilities share a maximum and whose product with v is summed before it joins the output.

    probabilities: "uint8", 0 to 255 of the largest of the row in this tile, or "fp8", 0 to 448 of the largest of the
    row so far, as v's codes are. accumulator_bits: of the mantissa that a sum of float8 products keeps; None: all.
    """

    tile: int = 128
    probabilities: Literal["uint8", "fp8"] = "uint8"
    accumulator_bits: int | None = None


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
    arithmetic: Arithmetic,
) -> tuple[Tensor, Tensor]:
    """As the op, by tiles. Memory grows with L * tile."""
    num_keys, tile = k.shape[2], arithmetic.tile
    factor = scale_of(q, scale)
    q_scale_BNL1 = per_token(q_scale, q_tokens_per_scale, q.shape[2])
    k_scale_BN1S = per_token(k_scale, k_tokens_per_scale, num_keys).mT
    v_BNSH = (unpermuted(v.float()) if is_permuted else v.float()).mT
    v_scale_BNSH = v_scale.repeat_interleave(v_tokens_per_scale or v.shape[3], dim=2)
    total = Totals.of(q)
    for first in range(0, num_keys, tile):
        keys = slice(first, min(first + tile, num_keys))
        # Exact in float64, as the sums of integers are in kernels.
        dots = (q.double() @ k[:, :, keys].double().mT).float()
        powers = dots * (q_scale_BNL1 * (factor * LOG2_E)) * k_scale_BN1S[..., keys]
        if k_lengths is not None:
            powers = powers.masked_fill(hidden_keys(k_lengths, num_keys)[..., keys], float("-inf"))
        total.add(powers, v_BNSH[:, :, keys], v_scale_BNSH[:, :, keys], arithmetic)
    out_BNLH = total.out / total.sum.unsqueeze(-1) + v_mean.unsqueeze(2)
    is_empty = total.sum == 0
    out_BNLH = out_BNLH.masked_fill(is_empty.unsqueeze(-1), 0)
    shift = (q.float() * q_scale_BNL1 * k_mean.unsqueeze(2)).sum(-1) * factor
    lse = ((total.largest + total.sum.log2()) / LOG2_E + shift).masked_fill(is_empty, float("-inf"))
    out_BLNH = out_BNLH.transpose(1, 2)
    if prior_out is not None and prior_lse is not None:
        out_BLNH, lse = merged(out_BLNH, lse, prior_out.float(), prior_lse)
    return out_BLNH.contiguous().to(out_dtype), lse


@dataclass
class Totals:
    """What a row of queries has seen: sums relative to 2^largest."""

    out: Tensor  # [B, N, L, H]
    sum: Tensor  # [B, N, L]
    largest: Tensor  # [B, N, L]

    @classmethod
    def of(cls, q: Tensor) -> "Totals":
        rows = torch.zeros(q.shape[:3])
        return cls(torch.zeros(q.shape), rows, torch.full_like(rows, float("-inf")))

    def add(self, powers: Tensor, v: Tensor, v_scale: Tensor, arithmetic: Arithmetic) -> None:
        """Takes a tile in: powers [B, N, L, T] of 2, codes and scales of v [B, N, T, H]."""
        here = powers.amax(-1)
        largest = torch.maximum(self.largest, here)
        base = here if arithmetic.probabilities == "uint8" else largest
        weights = torch.exp2(powers - settled(base).unsqueeze(-1))
        product = product_with_values(weights, v, v_scale, arithmetic)
        old, new = torch.exp2(self.largest - settled(largest)), torch.exp2(base - settled(largest))
        self.out = self.out * old.unsqueeze(-1) + product * new.unsqueeze(-1)
        self.sum = self.sum * old + weights.sum(-1) * new
        self.largest = largest


def product_with_values(weights: Tensor, v: Tensor, v_scale: Tensor, arithmetic: Arithmetic) -> Tensor:
    """weights [B, N, L, T] in 8 bits times v. A tile lies within one block of v's scales, or all share one."""
    if arithmetic.probabilities == "uint8":
        codes = (weights * 255).round()
        return (codes.double() @ v.double()).float() / 255 * v_scale[:, :, :1]
    codes = (weights * LIMITS[FP8]).to(FP8).float()
    return sum_of_float8(codes, v, arithmetic.accumulator_bits) / LIMITS[FP8] * v_scale[:, :, :1]


def sum_of_float8(codes: Tensor, v: Tensor, accumulator_bits: int | None) -> Tensor:
    """codes @ v, the accumulator cut to so many bits of mantissa after each instruction."""
    total = torch.zeros(*codes.shape[:-1], v.shape[-1])
    for first in range(0, codes.shape[-1], WGMMA_DEPTH):
        part = slice(first, first + WGMMA_DEPTH)
        total = cut(total + codes[..., part] @ v[:, :, part], accumulator_bits)
    return total


def cut(value: Tensor, num_bits: int | None) -> Tensor:
    """Towards zero, to so many bits of mantissa."""
    if num_bits is None:
        return value
    mantissa, exponent = torch.frexp(value)
    return torch.ldexp((mantissa * 2.0**num_bits).trunc(), exponent - num_bits)


def settled(largest: Tensor) -> Tensor:
    """0 where there is no key yet: -inf - -inf is NaN."""
    return largest.masked_fill(largest == float("-inf"), 0)


def per_token(scales: Tensor, tokens_per_scale: int, length: int) -> Tensor:
    return scales.repeat_interleave(tokens_per_scale, dim=2)[:, :, :length].unsqueeze(-1)
