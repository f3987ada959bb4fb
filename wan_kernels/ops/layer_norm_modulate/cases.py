"""Real shapes of Wan, odd shapes, extremes."""

from typing import Any

import torch
from torch import Tensor

from wan_kernels.common.case import Build, Case, Inputs


def modulated(
    *shape: int,
    num_rows: int = 1,
    is_affine: bool = False,
    index_dtype: torch.dtype = torch.int32,
    out_dtype: torch.dtype | None = None,
    scale: float = 1.0,
    mean: float = 0.0,
) -> Build:
    """x with float32 scale and shift; every row its own index when there are several."""

    def build(make: Inputs) -> tuple[Any, ...]:
        num_samples, num_tokens, width = shape
        x = make.normal(*shape, scale=scale, mean=mean)
        rows = (make.normal(num_samples, num_rows, width, dtype=torch.float32, scale=0.5) for _ in range(2))
        index = make.integers(num_samples, num_tokens, high=num_rows, dtype=index_dtype) if num_rows > 1 else None
        return x, *rows, *affine(make, width, is_affine), index, 1e-6, out_dtype

    return build


def plain(*shape: int, is_affine: bool = False, scale: float = 1.0, mean: float = 0.0) -> Build:
    return lambda make: (
        make.normal(*shape, scale=scale, mean=mean),
        None,
        None,
        *affine(make, shape[-1], is_affine),
        None,
        1e-6,
        None,
    )


def affine(make: Inputs, width: int, is_affine: bool) -> tuple[Tensor | None, Tensor | None]:
    if not is_affine:
        return None, None
    return make.normal(width, dtype=torch.float32, mean=1.0, scale=0.2), make.normal(width, dtype=torch.float32)


def from_chunks(make: Inputs) -> tuple[Any, ...]:
    """Scale and shift as the model has them: slices of the six modulation vectors, batch expanded from one."""
    modulation = make.normal(1, 1, 6, 96, dtype=torch.float32).expand(3, 1, 6, 96)
    return make.normal(3, 11, 96), modulation[:, :, 1], modulation[:, :, 0], None, None, None, 1e-6, None


def strided(make: Inputs) -> tuple[Any, ...]:
    x = make.normal(2, 96, 10).mT[:, ::2]
    return x, *(make.normal(2, 3, 192)[..., ::2] for _ in range(2)), None, None, index_of_five(make), 1e-6, None


def index_of_five(make: Inputs) -> Tensor:
    return make.integers(2, 10, high=3, dtype=torch.int64)[:, ::2]


CASES = (
    Case("wide_1.3B", modulated(1, 8192, 1536), is_heavy=True),
    Case("720p_81f_1.3B", modulated(1, 75600, 1536, out_dtype=torch.bfloat16), is_heavy=True),
    Case("720p_81f_14B", modulated(1, 75600, 5120, out_dtype=torch.bfloat16), is_heavy=True),
    Case("720p_121f_5B_per_token", modulated(1, 27280, 3072, num_rows=2, out_dtype=torch.bfloat16), is_heavy=True),
    Case("cross_attention_14B", plain(1, 75600, 5120, is_affine=True), is_heavy=True),
    # No Wan has both; the most that a backward must keep in registers.
    Case("affine_and_modulated_14B", modulated(1, 75600, 5120, is_affine=True), is_heavy=True),
    Case("tokens_127_1.3B", modulated(1, 127, 1536)),
    Case("tokens_7_14B", modulated(2, 7, 5120, out_dtype=torch.bfloat16)),
    Case("affine_1.3B", plain(2, 9, 1536, is_affine=True)),
    Case("plain_width_127", plain(2, 5, 127)),
    Case("affine_and_modulated", modulated(2, 5, 64, is_affine=True)),
    Case("rows_3", modulated(2, 17, 128, num_rows=3)),
    Case("rows_3_int64_affine", modulated(2, 17, 127, num_rows=3, is_affine=True, index_dtype=torch.int64)),
    Case("one_token", modulated(1, 1, 64)),
    Case("width_1", modulated(2, 3, 1)),
    Case("empty", modulated(2, 0, 64)),
    Case("from_chunks", from_chunks),
    Case("strided", strided),
    Case("large_mean", modulated(2, 9, 256, mean=100.0)),
    Case("large_values", plain(2, 9, 256, scale=1e12)),
    Case("small_values", plain(2, 9, 256, scale=1e-9)),
)
