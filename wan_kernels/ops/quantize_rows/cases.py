"""Real shapes of Wan, odd shapes, extremes."""

from typing import Any

import torch
from torch import Tensor

from wan_kernels.common.case import Build, Case, Inputs

FP8 = torch.float8_e4m3fn


def rows(*shape: int, dtype: torch.dtype = torch.int8, scale: float = 1.0, outlier: float | None = None) -> Build:
    """Normal rows; an outlier sits in the middle of the first."""

    def build(make: Inputs) -> tuple[Any, ...]:
        x = make.normal(*shape, scale=scale)
        return (x if outlier is None else with_outlier(x, outlier)), dtype

    return build


def with_outlier(x: Tensor, value: float) -> Tensor:
    x.view(-1, x.shape[-1])[:1, x.shape[-1] // 2] = value
    return x


def strided(make: Inputs) -> tuple[Any, ...]:
    return make.normal(2, 96, 20).mT[:, ::2], torch.int8


def zeros(make: Inputs) -> tuple[Any, ...]:
    x = make.normal(4, 70)
    x[1:3] = 0
    return x, torch.int8


CASES = (
    Case("wide_1.3B", rows(1, 8192, 1536), is_heavy=True),
    Case("ffn_480p_1.3B", rows(1, 32760, 8960), is_heavy=True),
    Case("720p_81f_14B", rows(1, 75600, 5120), is_heavy=True),
    Case("720p_81f_14B_fp8", rows(1, 75600, 5120, dtype=FP8), is_heavy=True),
    Case("tokens_127_1.3B", rows(1, 127, 1536)),
    Case("tokens_7_14B_fp8", rows(2, 7, 5120, dtype=FP8)),
    Case("ffn_1.3B", rows(3, 8960)),
    Case("width_127", rows(3, 5, 127)),
    Case("width_127_fp8", rows(3, 5, 127, dtype=FP8)),
    Case("width_1", rows(2, 3, 1)),
    Case("width_20000", rows(2, 20000)),
    Case("width_20000_nan_fp8", rows(2, 20000, dtype=FP8, outlier=float("nan"))),
    Case("one_row_fp8", rows(64, dtype=FP8)),
    Case("empty", rows(2, 0, 64)),
    Case("no_width", rows(2, 3, 0)),
    Case("strided", strided),
    Case("zero_rows", zeros),
    Case("one_huge", rows(2, 257, outlier=6e4)),
    Case("one_huge_fp8", rows(2, 257, dtype=FP8, outlier=6e4)),
    Case("large_values", rows(2, 9, 256, scale=1e12)),
    Case("small_values", rows(2, 9, 256, scale=1e-9)),
    Case("small_values_fp8", rows(2, 9, 256, dtype=FP8, scale=1e-9)),
    Case("infinite", rows(3, 65, outlier=float("inf"))),
    Case("nan_fp8", rows(3, 65, dtype=FP8, outlier=float("nan"))),
)
