"""Real shapes of Wan, odd shapes, extremes."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from wan_kernels.common.case import Build, Case, Inputs
from wan_kernels.common.quantize import VALUES_ORDER, VALUES_TILE, quantize

INT8, FP8 = torch.int8, torch.float8_e4m3fn
Change = Callable[[list[Any]], None]


def attend(
    num_samples: int,
    num_queries: int,
    num_keys: int,
    num_heads: int,
    head_width: int = 128,
    *,
    v_dtype: torch.dtype = INT8,
    blocks: tuple[int, int, int] = (1, 1, 256),
    lengths: tuple[int, ...] | None = None,
    spread: float = 1.0,
    offset: float = 0.0,
    has_prior: bool = False,
    scale: float | None = None,
    change: Change | None = None,
) -> Build:
    """Codes of normal values. blocks: tokens per scale of q, k and v; offset: a mean taken off k and v; float8 values
    are permuted, as tensor cores want them, integers are not; change: what to make of the arguments.
    """

    def build(make: Inputs) -> tuple[Any, ...]:
        heads = num_samples, num_heads
        q, q_scale = blocked(make.normal(*heads, num_queries, head_width, dtype=torch.float32, scale=spread), blocks[0])
        k, k_scale = blocked(make.normal(*heads, num_keys, head_width, dtype=torch.float32), blocks[1])
        v, v_scale = values(make.normal(*heads, head_width, num_keys, dtype=torch.float32), v_dtype, blocks[2])
        k_mean, v_mean = (make.normal(*heads, head_width, dtype=torch.float32, scale=offset) for _ in range(2))
        k_lengths = None if lengths is None else torch.tensor(lengths, dtype=torch.int32, device=make.device)
        prior: tuple[Tensor | None, Tensor | None] = (None, None)
        if has_prior:
            prior_out = make.normal(num_samples, num_queries, num_heads, head_width)
            prior = prior_out, make.normal(*heads, num_queries, dtype=torch.float32, mean=3.0)
        options = (*blocks, v_dtype is FP8, scale)
        args = [q, q_scale, k, k_scale, k_mean, v, v_scale, v_mean, make.dtype, k_lengths, *prior, *options]
        if change is not None:
            change(args)
        return tuple(args)

    return build


def blocked(x: Tensor, tokens_per_scale: int) -> tuple[Tensor, Tensor]:
    """int8 codes [B, N, L, H] with a scale for each block of tokens."""
    length, width = x.shape[2:]
    num_blocks = -(-length // tokens_per_scale)
    whole = F.pad(x, (0, 0, 0, num_blocks * tokens_per_scale - length))
    codes, scales = quantize(whole.unflatten(2, (num_blocks, tokens_per_scale)).flatten(3), INT8)
    return codes.unflatten(3, (tokens_per_scale, width)).flatten(2, 3)[:, :, :length].contiguous(), scales


def values(x: Tensor, dtype: torch.dtype, tokens_per_scale: int) -> tuple[Tensor, Tensor]:
    """Codes [B, N, H, P] and scales [B, N, blocks, H]; tokens_per_scale 0: one block."""
    num_positions = -(-x.shape[3] // VALUES_TILE) * VALUES_TILE
    step = tokens_per_scale or num_positions
    num_blocks = -(-num_positions // step)
    whole = F.pad(x, (0, num_blocks * step - x.shape[3])).unflatten(3, (num_blocks, step))
    codes, scales = quantize(whole, dtype)
    codes = codes.flatten(3)[..., :num_positions]
    if dtype is FP8:
        codes = codes.unflatten(3, (-1, len(VALUES_ORDER)))[..., list(VALUES_ORDER)].flatten(3)
    return codes.contiguous(), scales.mT.contiguous()


def strange(slot: int, *found: float) -> Change:
    """Puts values that no quantiser makes at the head of a tensor of scales."""

    def change(args: list[Any]) -> None:
        if args[slot].device.type != "meta":
            args[slot].view(-1)[: len(found)] = torch.tensor(found)

    return change


def one_huge_key(args: list[Any]) -> None:
    args[3][..., 5] *= 40


def one_huge_key_of_a_block(args: list[Any]) -> None:
    huge = args[2][:, :, 5].clone()
    args[2][:, :, : args[13]].div_(40, rounding_mode="trunc")
    args[2][:, :, 5] = huge
    args[3][..., 0] *= 40


def equal_rows(args: list[Any]) -> None:
    args[2].copy_(args[2][:, :, :1].expand_as(args[2]))
    args[3].copy_(args[3][:, :, :1].expand_as(args[3]))


def zero_values(args: list[Any]) -> None:
    args[5].zero_()


Q_SCALE, K_SCALE, V_SCALE = 1, 3, 6
attend_fp8 = partial(attend, v_dtype=FP8, blocks=(16, 128, 0))

# Probabilities in 8 bits: at most half a step of 1/255 of the largest of a row's tile, or 1/16 of each in float8, both
# far less on average. Held closer, by relative L1 and cosine, in tests/ops/test_attention_8bit.py.
FLOORS = {("output_0", dtype): 4e-2 for dtype in (torch.float32, torch.bfloat16, torch.float16)}
LSE_FLOOR = {("output_1", dtype): 2e-5 for dtype in (torch.float32, torch.bfloat16, torch.float16)}

CASES = tuple(
    replace(case, floors={**FLOORS, **LSE_FLOOR})
    for case in (
        Case("720p_81f_14B", attend_fp8(1, 75600, 75600, 40), is_heavy=True),
        Case("480p_81f_14B", attend_fp8(1, 32760, 32760, 40), is_heavy=True),
        Case("text_14B", attend_fp8(1, 75600, 512, 40), is_heavy=True),
        Case("720p_81f_14B_hop_of_8", attend_fp8(1, 9450, 9450, 40, has_prior=True), is_heavy=True),
        Case("4096_1.3B", attend(1, 4096, 4096, 12), is_heavy=True),
        Case("480p_5f_1.3B", attend(1, 3120, 3120, 12), is_heavy=True),
        Case("text_1.3B", attend(1, 3120, 512, 12), is_heavy=True),
        Case("self_127", attend(1, 127, 127, 3)),
        Case("head_width_64", attend(2, 65, 31, 3, 64)),
        Case("self_127_fp8", attend_fp8(1, 127, 127, 3)),
        Case("text_fp8", attend_fp8(1, 33, 512, 2)),
        Case("several_tiles", attend(1, 70, 517, 2)),
        Case("several_tiles_fp8", attend_fp8(1, 70, 517, 2)),
        Case("head_width_64_fp8", attend_fp8(2, 65, 31, 3, 64)),
        Case("lengths", attend(3, 17, 140, 2, lengths=(140, 1, 129))),
        Case("lengths_fp8", attend_fp8(3, 17, 140, 2, lengths=(140, 1, 129))),
        Case("no_key_visible", attend(2, 9, 140, 2, lengths=(0, 3))),
        Case("no_key_visible_fp8", attend_fp8(2, 9, 140, 2, lengths=(0, 3))),
        Case("means", attend(2, 19, 40, 2, offset=2.0)),
        Case("means_fp8", attend_fp8(2, 19, 40, 2, offset=2.0)),
        Case("prior", attend(2, 19, 40, 2, has_prior=True, offset=1.0)),
        Case("prior_fp8", attend_fp8(2, 19, 40, 2, has_prior=True, offset=1.0)),
        Case("prior_and_no_key", attend(2, 9, 40, 2, has_prior=True, lengths=(0, 40))),
        Case("prior_and_no_key_fp8", attend_fp8(2, 9, 40, 2, has_prior=True, lengths=(0, 40))),
        Case("blocks_64_of_k", attend(1, 40, 200, 2, blocks=(32, 64, 128))),
        Case("one_block_of_v", attend(1, 40, 300, 2, blocks=(1, 1, 0))),
        Case("blocks_256_of_k_fp8", attend_fp8(1, 40, 700, 2, blocks=(32, 256, 0))),
        Case("keys_4097_fp8", attend_fp8(1, 17, 4097, 1, blocks=(1, 128, 0))),
        Case("scale_1", attend(1, 16, 16, 2, scale=1.0, spread=0.2)),
        Case("scale_1_fp8", attend_fp8(1, 16, 16, 2, scale=1.0, spread=0.2)),
        Case("one_query", attend(1, 1, 129, 2)),
        Case("one_key", attend(2, 9, 1, 2), min_scale=1.0),
        Case("one_key_fp8", attend_fp8(2, 9, 1, 2), min_scale=1.0),
        Case("no_queries", attend(2, 0, 9, 2)),
        Case("no_samples", attend(0, 9, 9, 2)),
        Case("no_queries_fp8", attend_fp8(2, 0, 9, 2)),
        Case("no_samples_fp8", attend_fp8(0, 9, 9, 2)),
        Case("peaked", attend(1, 33, 165, 2, spread=10.0)),
        Case("peaked_fp8", attend_fp8(1, 33, 165, 2, spread=10.0)),
        Case("one_huge_key", attend(1, 33, 165, 2, change=one_huge_key)),
        Case("one_huge_key_fp8", attend_fp8(1, 33, 165, 2, change=one_huge_key_of_a_block)),
        Case("keys_equal", attend(1, 9, 140, 2, change=equal_rows)),
        Case("values_zero", attend(1, 9, 140, 2, change=zero_values)),
        Case("q_scale_not_finite", attend(1, 9, 40, 2, change=strange(Q_SCALE, 0.0, float("nan"), float("inf")))),
        Case("k_scale_not_finite", attend(1, 9, 40, 2, change=strange(K_SCALE, float("nan")))),
        Case("v_scale_not_finite", attend(1, 9, 40, 2, change=strange(V_SCALE, float("nan"), float("inf"), 0.0))),
        Case(
            "q_scale_not_finite_fp8",
            attend_fp8(1, 9, 40, 2, blocks=(1, 128, 0), change=strange(Q_SCALE, 0.0, float("nan"), float("inf"))),
        ),
        Case(
            "k_scale_not_finite_fp8", attend_fp8(1, 9, 140, 3, change=strange(K_SCALE, float("nan"), 0.1, float("inf")))
        ),
        Case(
            "k_scale_not_finite_beyond_length_fp8",
            attend_fp8(1, 9, 300, 2, lengths=(128,), change=strange(K_SCALE, 0.1, float("nan"), float("inf"))),
        ),
        Case(
            "v_scale_not_finite_fp8", attend_fp8(1, 9, 40, 2, change=strange(V_SCALE, float("nan"), float("inf"), 0.0))
        ),
    )
)
