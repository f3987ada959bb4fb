"""Real shapes of Wan, odd shapes, extremes."""

from typing import Any

import torch
from torch import Tensor

from wan_kernels.common.case import Build, Case, Inputs, wan_rotations

Grid = tuple[int, int, int]


def tokens(
    num_samples: int,
    num_tokens: int,
    num_heads: int,
    grid: Grid,
    tokens_per_scale: int = 1,
    is_smooth: bool = False,
    head_width: int = 128,
    scale: float = 1.0,
    offset: float = 0.0,
) -> Build:
    """q or k of a layer, with Wan's tables; an offset of its own for each channel."""

    def build(make: Inputs) -> tuple[Any, ...]:
        width = num_heads * head_width
        x = make.normal(num_samples, num_tokens, width, scale=scale)
        if offset:
            x = x + make.normal(width, scale=offset)
        weight = make.normal(width, dtype=torch.float32, mean=1.0, scale=0.2)
        return arguments(make, x, weight, num_heads, grid, tokens_per_scale, is_smooth)

    return build


def arguments(
    make: Inputs, x: Tensor, weight: Tensor, num_heads: int, grid: Grid, tokens_per_scale: int, is_smooth: bool
) -> tuple[Any, ...]:
    tables = wan_rotations(make, x.shape[2] // num_heads)
    return x, weight, *tables, num_heads, list(grid), 1e-6, tokens_per_scale, is_smooth


def only_time(make: Inputs) -> tuple[Any, ...]:
    freqs = (make.rotations(5, 1), make.rotations(1, 0), make.rotations(1, 0))
    return make.normal(2, 5, 6), make.normal(6), *freqs, 3, [5, 1, 1], 1e-6, 2, True


def strided(make: Inputs) -> tuple[Any, ...]:
    """k as a slice of a fused projection, weight with a stride."""
    x = make.normal(2, 12, 3, 256)[:, :, 1]
    return arguments(make, x, make.normal(512)[::2], 2, (1, 3, 4), 5, True)


def altered(value: float, tokens_per_scale: int = 1, is_smooth: bool = False) -> Build:
    """One element of one token replaced, in the second of two samples."""

    def build(make: Inputs) -> tuple[Any, ...]:
        x = make.normal(2, 20, 96)
        x[1, 7, 50] = value
        return arguments(make, x, make.normal(96, mean=1.0), 3, (2, 3, 3), tokens_per_scale, is_smooth)

    return build


def zero_tokens(make: Inputs) -> tuple[Any, ...]:
    x = make.normal(2, 20, 64)
    x[:, 4:13] = 0
    return arguments(make, x, make.normal(64), 2, (2, 3, 3), 4, False)


CASES = (
    Case("wide_1.3B", tokens(1, 8192, 12, (8, 32, 32)), is_heavy=True),
    Case("wide_1.3B_smooth", tokens(1, 8192, 12, (8, 32, 32), is_smooth=True), is_heavy=True),
    Case("720p_81f_1.3B_smooth", tokens(1, 75600, 12, (21, 45, 80), 64, True), is_heavy=True),
    Case("720p_81f_14B", tokens(1, 75600, 40, (21, 45, 80)), is_heavy=True),
    Case("720p_81f_14B_16", tokens(1, 75600, 40, (21, 45, 80), 16), is_heavy=True),
    Case("720p_81f_14B_smooth", tokens(1, 75600, 40, (21, 45, 80), 1, True), is_heavy=True),
    Case("720p_81f_14B_smooth_64", tokens(1, 75600, 40, (21, 45, 80), 64, True), is_heavy=True),
    Case("480p_81f_14B_smooth_128", tokens(1, 32760, 40, (21, 30, 52), 128, True), is_heavy=True),
    Case("grid_3x5x7_1.3B", tokens(1, 105, 12, (3, 5, 7))),
    Case("grid_3x5x7_1.3B_smooth", tokens(1, 105, 12, (3, 5, 7), 16, True, offset=3.0)),
    Case("grid_2x2x2_14B_smooth", tokens(1, 8, 40, (2, 2, 2), 1, True)),
    Case("padded_127", tokens(2, 127, 2, (3, 5, 7))),
    Case("padded_127_16", tokens(2, 127, 2, (3, 5, 7), 16)),
    Case("padded_127_smooth_64", tokens(2, 127, 2, (3, 5, 7), 64, True, offset=3.0)),
    Case("tokens_129_smooth_128", tokens(1, 129, 2, (1, 3, 43), 128, True, offset=3.0)),
    Case("one_token", tokens(1, 1, 1, (1, 1, 1))),
    Case("one_token_smooth", tokens(1, 1, 1, (1, 1, 1), 64, True)),
    Case("no_grid", tokens(1, 3, 2, (0, 1, 1), 2)),
    Case("no_grid_at_all", tokens(1, 9, 2, (0, 0, 0))),
    Case("no_grid_at_all_smooth", tokens(2, 9, 2, (0, 0, 0), 4, True, offset=3.0)),
    Case("head_width_64", tokens(2, 24, 3, (2, 3, 4), 7, head_width=64)),
    Case("head_width_6", tokens(2, 24, 3, (2, 3, 4), 5, True, head_width=6)),
    Case("head_width_22", tokens(2, 24, 3, (2, 3, 4), head_width=22)),
    Case("only_time", only_time),
    Case("empty", tokens(0, 24, 2, (2, 3, 4))),
    Case("no_tokens", tokens(2, 0, 2, (0, 3, 4), 16, True)),
    Case("strided", strided),
    Case("zero_tokens", zero_tokens),
    Case("large_values", tokens(1, 12, 2, (1, 3, 4), 16, scale=1e12)),
    Case("small_values", tokens(1, 12, 2, (1, 3, 4), scale=1e-12)),
    Case("one_huge", altered(6e4)),
    Case("one_huge_smooth", altered(6e4, 16, True)),
    Case("nan", altered(float("nan"))),
    Case("nan_16", altered(float("nan"), 16)),
    Case("nan_smooth", altered(float("nan"), 4, True)),
    Case("infinite", altered(float("inf"))),
    Case("infinite_smooth", altered(float("inf"), 16, True)),
)
