"""Real shapes of Wan, odd shapes, extremes."""

from dataclasses import replace
from typing import Any

import torch

from wan_kernels.common.case import Build, Case, Inputs


def heads(
    num_samples: int,
    num_queries: int,
    num_keys: int,
    num_heads: int,
    head_width: int = 128,
    lengths: tuple[int, ...] | None = None,
    scale: float | None = None,
    spread: float = 1.0,
) -> Build:
    def build(make: Inputs) -> tuple[Any, ...]:
        q = make.normal(num_samples, num_queries, num_heads, head_width, scale=spread)
        k, v = (make.normal(num_samples, num_keys, num_heads, head_width) for _ in range(2))
        k_lengths = None if lengths is None else torch.tensor(lengths, dtype=torch.int32, device=make.device)
        return q, k, v, k_lengths, scale

    return build


def fused_projection(make: Inputs) -> tuple[Any, ...]:
    """q, k, v as slices of one tensor."""
    q, k, v = make.normal(2, 33, 3, 2, 64).unbind(2)
    return q, k, v, None, None


def heads_first(make: Inputs) -> tuple[Any, ...]:
    q, k, v = (make.normal(2, 3, 32, length).permute(0, 3, 1, 2) for length in (9, 17, 17))
    return q, k, v, None, None


# Fused kernels round the probabilities and their gradient to 16 bits before the products (two more roundings of half a
# unit in the last place), and take the difference of two sums over keys, where float32 cancels. Torch's flash kernel on
# CPU takes the exponential of 16-bit inputs from a polynomial that is good to about 1e-5.
GRADIENT_FLOORS = {torch.bfloat16: 4e-3, torch.float16: 5e-4, torch.float32: 4e-6}
FLOORS = {
    (f"grad_{name}_from_{num_used}", dtype): floor
    for name in "qkv"
    for num_used in (1, 2)
    for dtype, floor in GRADIENT_FLOORS.items()
} | {("output_1", torch.bfloat16): 2e-5, ("output_1", torch.float16): 2e-5}

# Float32 rounds logits beyond 100 to 1e-5, and the exponential carries that over.
LARGE_FLOORS = {key: 8 * floor for key, floor in FLOORS.items()}

CASES = tuple(
    replace(case, floors=case.floors or FLOORS)
    for case in (
        Case("720p_81f_1.3B", heads(1, 75600, 75600, 12), is_heavy=True),
        Case("720p_81f_14B", heads(1, 75600, 75600, 40), is_heavy=True),
        Case("480p_81f_14B", heads(1, 32760, 32760, 40), is_heavy=True),
        Case("480p_5f_1.3B", heads(1, 3120, 3120, 12), is_heavy=True),
        Case("text_14B", heads(1, 75600, 512, 40), is_heavy=True),
        Case("text_lengths_1.3B", heads(2, 32760, 512, 12, lengths=(512, 77)), is_heavy=True),
        Case("vae_frame_720p", heads(1, 90 * 160, 90 * 160, 1, head_width=384), is_heavy=True),
        Case("self_127", heads(1, 127, 127, 12)),
        Case("text_40_heads", heads(1, 33, 512, 40)),
        Case("text_lengths", heads(3, 17, 40, 2, lengths=(40, 1, 7))),
        Case("lengths_across_tiles", heads(2, 130, 300, 1, head_width=64, lengths=(300, 129))),
        Case("keys_4097", heads(1, 2, 4097, 1, head_width=64)),
        Case("all_keys_by_length", heads(2, 5, 9, 2, lengths=(9, 9))),
        Case("vae_frame", heads(3, 36, 36, 1, head_width=384)),
        Case("head_width_64", heads(2, 65, 31, 3, head_width=64)),
        Case("head_width_8", heads(2, 5, 7, 2, head_width=8)),
        Case("scale_1", heads(1, 16, 16, 2, head_width=32, scale=1.0, spread=0.2)),
        Case("one_query", heads(1, 1, 129, 2)),
        Case("one_key", heads(2, 9, 1, 2), min_scale=1.0),
        Case("one_of_each", heads(1, 1, 1, 1), min_scale=1.0),
        Case("no_queries", heads(2, 0, 9, 2)),
        Case("no_samples", heads(0, 9, 9, 2)),
        Case("fused_projection", fused_projection),
        Case("heads_first", heads_first),
        Case("large_logits", heads(1, 33, 65, 2, spread=30.0), floors=LARGE_FLOORS),
    )
)
