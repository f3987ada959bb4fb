"""Real shapes of Wan, odd shapes, extremes."""

from typing import Any

import torch
from torch import Tensor

from wan_kernels.common.case import Build, Case, Inputs

FP8 = torch.float8_e4m3fn


def modulated(
    *shape: int,
    num_rows: int = 1,
    is_affine: bool = False,
    dtype: torch.dtype = torch.int8,
    stream_dtype: torch.dtype | None = None,
    scale: float = 1.0,
    mean: float = 0.0,
) -> Build:
    """x with float32 scale and shift; every row its own index when there are several."""

    def build(make: Inputs) -> tuple[Any, ...]:
        num_samples, num_tokens, width = shape
        x = make.normal(*shape, dtype=stream_dtype, scale=scale, mean=mean)
        rows = (make.normal(num_samples, num_rows, width, dtype=torch.float32, scale=0.5) for _ in range(2))
        index = make.integers(num_samples, num_tokens, high=num_rows) if num_rows > 1 else None
        return x, *rows, *affine(make, width, is_affine), index, 1e-6, dtype

    return build


def plain(*shape: int, is_affine: bool = False, dtype: torch.dtype = torch.int8, scale: float = 1.0) -> Build:
    return lambda make: (
        make.normal(*shape, scale=scale),
        None,
        None,
        *affine(make, shape[-1], is_affine),
        None,
        1e-6,
        dtype,
    )


def affine(make: Inputs, width: int, is_affine: bool) -> tuple[Tensor | None, Tensor | None]:
    if not is_affine:
        return None, None
    return make.normal(width, dtype=torch.float32, mean=1.0, scale=0.2), make.normal(width, dtype=torch.float32)


def strided(make: Inputs) -> tuple[Any, ...]:
    x = make.normal(2, 96, 10).mT[:, ::2]
    index = make.integers(2, 10, high=3, dtype=torch.int64)[:, ::2]
    return x, *(make.normal(2, 3, 192)[..., ::2] for _ in range(2)), None, None, index, 1e-6, torch.int8


def stray(value: float) -> Build:
    def build(make: Inputs) -> tuple[Any, ...]:
        x = make.normal(1, 3, 70)
        x[0, 1, 5] = value
        return x, None, None, None, None, None, 1e-6, torch.int8

    return build


FP32 = torch.float32  # the residual stream's dtype in the model

CASES = (
    Case("wide_1.3B", modulated(1, 8192, 1536, stream_dtype=FP32), is_heavy=True),
    Case("720p_81f_1.3B", modulated(1, 75600, 1536, stream_dtype=FP32), is_heavy=True),
    Case("720p_81f_14B", modulated(1, 75600, 5120, stream_dtype=FP32), is_heavy=True),
    Case("720p_81f_14B_fp8", modulated(1, 75600, 5120, stream_dtype=FP32, dtype=FP8), is_heavy=True),
    Case("720p_121f_5B_per_token", modulated(1, 27280, 3072, num_rows=2, stream_dtype=FP32), is_heavy=True),
    Case("cross_attention_14B", plain(1, 75600, 5120, is_affine=True), is_heavy=True),
    Case("tokens_127_1.3B", modulated(1, 127, 1536)),
    Case("tokens_7_14B_fp8", modulated(2, 7, 5120, dtype=FP8)),
    Case("affine_1.3B", plain(2, 9, 1536, is_affine=True)),
    Case("plain_width_127", plain(2, 5, 127)),
    Case("affine_and_modulated_fp8", modulated(2, 5, 64, is_affine=True, dtype=FP8)),
    Case("rows_3", modulated(2, 17, 128, num_rows=3)),
    Case("one_token", modulated(1, 1, 64)),
    Case("width_1", modulated(2, 3, 1)),
    Case("empty", modulated(2, 0, 64)),
    Case("strided", strided),
    Case("large_mean", modulated(2, 9, 256, mean=100.0)),
    Case("large_values", plain(2, 9, 256, scale=1e12)),
    Case("small_values_fp8", plain(2, 9, 256, scale=1e-9, dtype=FP8)),
    Case("infinite", stray(float("inf"))),
    Case("nan", stray(float("nan"))),
)
