"""Real shapes of Wan, odd shapes, extremes."""

from typing import Any

import torch

from wan_kernels.common.case import Build, Case, Inputs, wan_rotations

Grid = tuple[int, int, int]


def tokens(
    num_samples: int,
    num_tokens: int,
    num_heads: int,
    grid: Grid,
    head_width: int = 128,
    weight_dtype: torch.dtype | None = torch.float32,
    scale: float = 1.0,
) -> Build:
    """q or k of a layer, with Wan's tables."""

    def build(make: Inputs) -> tuple[Any, ...]:
        width = num_heads * head_width
        x = make.normal(num_samples, num_tokens, width, scale=scale)
        weight = make.normal(width, dtype=weight_dtype, mean=1.0, scale=0.2)
        return x, weight, *wan_rotations(make, head_width), num_heads, list(grid), 1e-6

    return build


def only_time(make: Inputs) -> tuple[Any, ...]:
    freqs = (make.rotations(5, 1), make.rotations(1, 0), make.rotations(1, 0))
    return make.normal(2, 5, 6), make.normal(6), *freqs, 3, [5, 1, 1], 1e-6


def strided(make: Inputs) -> tuple[Any, ...]:
    """q as a slice of a fused projection, weight with a stride."""
    x = make.normal(2, 12, 3, 256)[:, :, 1]
    return x, make.normal(512)[::2], *wan_rotations(make, 128), 2, [1, 3, 4], 1e-6


CASES = (
    Case("wide_1.3B", tokens(1, 8192, 12, (8, 32, 32)), is_heavy=True),
    Case("720p_81f_1.3B", tokens(1, 75600, 12, (21, 45, 80)), is_heavy=True),
    Case("720p_81f_14B", tokens(1, 75600, 40, (21, 45, 80)), is_heavy=True),
    Case("480p_81f_14B", tokens(1, 32760, 40, (21, 30, 52)), is_heavy=True),
    Case("grid_3x5x7_1.3B", tokens(1, 105, 12, (3, 5, 7))),
    Case("grid_2x2x2_14B", tokens(1, 8, 40, (2, 2, 2))),
    Case("padded_127", tokens(2, 127, 2, (3, 5, 7), weight_dtype=None)),
    Case("one_token", tokens(1, 1, 1, (1, 1, 1))),
    Case("no_grid", tokens(1, 3, 2, (0, 1, 1))),
    Case("no_grid_at_all", tokens(2, 5, 2, (0, 0, 0), weight_dtype=None)),
    Case("head_width_64", tokens(2, 24, 3, (2, 3, 4), head_width=64)),
    Case("head_width_6", tokens(2, 24, 3, (2, 3, 4), head_width=6)),
    Case("only_time", only_time),
    Case("empty", tokens(0, 24, 2, (2, 3, 4))),
    Case("strided", strided),
    Case("large_values", tokens(1, 12, 2, (1, 3, 4), scale=1e12)),
    Case("small_values", tokens(1, 12, 2, (1, 3, 4), scale=1e-12)),
)
