"""Real shapes of Wan, odd shapes, extremes."""

import torch
from torch import Tensor

from wan_kernels.common.case import Build, Case, Inputs


def rows(*shape: int, eps: float = 1e-6, scale: float = 1.0, weight_dtype: torch.dtype | None = None) -> Build:
    return lambda make: (
        make.normal(*shape, scale=scale),
        make.normal(shape[-1], dtype=weight_dtype, mean=1.0, scale=0.2),
        eps,
    )


def with_zero_row(make: Inputs) -> tuple[Tensor, Tensor, float]:
    x, weight, eps = rows(3, 5, 64)(make)
    x[1, 2] = 0
    return x, weight, eps


CASES = (
    Case("wide_1.3B", rows(1, 8192, 1536), is_heavy=True),
    Case("720p_81f_1.3B", rows(1, 75600, 1536), is_heavy=True),
    Case("720p_81f_14B", rows(1, 75600, 5120), is_heavy=True),
    Case("text_umt5", rows(1, 512, 4096), is_heavy=True),
    Case("tokens_127_1.3B", rows(1, 127, 1536)),
    Case("tokens_7_14B", rows(2, 7, 5120, weight_dtype=torch.float32)),
    Case("width_127", rows(3, 5, 127)),
    Case("width_1", rows(4, 1)),
    Case("one_row", rows(64)),
    Case("many_dims", rows(2, 3, 2, 2, 48, eps=1e-5)),
    Case("empty", rows(2, 0, 64)),
    Case("transposed", lambda make: (make.normal(2, 64, 9).mT, make.normal(64), 1e-6)),
    Case("sliced", lambda make: (make.normal(4, 9, 200)[:, ::2, 3:131], make.normal(256)[::2], 1e-6)),
    Case("large_values", rows(2, 9, 256, scale=1e12)),
    Case("small_values", rows(2, 9, 256, scale=1e-12)),
    Case("zero_row", with_zero_row),
)
