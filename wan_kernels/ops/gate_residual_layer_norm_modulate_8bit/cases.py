"""Real shapes of Wan, odd shapes, extremes."""

from typing import Any

import torch
from torch import Tensor

from wan_kernels.common.case import Build, Case, Inputs

FP32 = torch.float32  # of the residual stream in the model
FP8 = torch.float8_e4m3fn


def residual(
    *shape: int,
    has_gate: bool = True,
    is_modulated: bool = True,
    is_affine: bool = False,
    num_rows: int = 1,
    stream_dtype: torch.dtype | None = FP32,
    dtype: torch.dtype = torch.int8,
    scale: float = 1.0,
    mean: float = 0.0,
) -> Build:
    """A stream (stream_dtype None: of the activations' type), what is added, and rows of one timestep or several."""

    def build(make: Inputs) -> tuple[Any, ...]:
        num_samples, num_tokens, width = shape
        x = make.normal(*shape, dtype=stream_dtype, scale=scale, mean=mean)
        y = make.normal(*shape, scale=scale)
        gate, *rows = (make.normal(num_samples, num_rows, width, dtype=FP32, scale=0.5) for _ in range(3))
        index = make.integers(num_samples, num_tokens, high=num_rows) if num_rows > 1 else None
        tables = (gate if has_gate else None), *(rows if is_modulated else (None, None))
        return x, y, *tables, *affine(make, width, is_affine), index, 1e-6, dtype

    return build


def affine(make: Inputs, width: int, is_affine: bool) -> tuple[Tensor | None, Tensor | None]:
    if not is_affine:
        return None, None
    return make.normal(width, dtype=FP32, mean=1.0, scale=0.2), make.normal(width, dtype=FP32)


def before_cross_attention(*shape: int, **options: Any) -> Build:
    """After self-attention: a gate, then a norm with weight and bias."""
    return residual(*shape, is_modulated=False, is_affine=True, **options)


def before_ffn(*shape: int, **options: Any) -> Build:
    """After cross-attention: no gate, then a norm with scale and shift."""
    return residual(*shape, has_gate=False, **options)


def strided(make: Inputs) -> tuple[Any, ...]:
    x, y = make.normal(2, 96, 10, dtype=FP32).mT[:, ::2], make.normal(2, 10, 100)[:, ::2, 4:]
    index = make.integers(2, 10, high=3, dtype=torch.int64)[:, ::2]
    return x, y, *(make.normal(2, 3, 192)[..., ::2] for _ in range(3)), None, None, index, 1e-6, torch.int8


def stray(value: float) -> Build:
    def build(make: Inputs) -> tuple[Any, ...]:
        x, y = make.normal(1, 3, 70), make.normal(1, 3, 70)
        y[0, 1, 5] = value
        return x, y, None, None, None, None, None, None, 1e-6, torch.int8

    return build


CASES = (
    Case("wide_1.3B", residual(1, 8192, 1536), is_heavy=True),
    Case("before_cross_attention_1.3B", before_cross_attention(1, 75600, 1536), is_heavy=True),
    Case("before_cross_attention_14B_fp8", before_cross_attention(1, 75600, 5120, dtype=FP8), is_heavy=True),
    Case("before_ffn_1.3B_fp8", before_ffn(1, 75600, 1536, dtype=FP8), is_heavy=True),
    Case("before_ffn_14B", before_ffn(1, 75600, 5120), is_heavy=True),
    Case("720p_121f_5B_per_token", residual(1, 27280, 3072, num_rows=2), is_heavy=True),
    Case("tokens_127_1.3B", residual(1, 127, 1536)),
    Case("before_cross_attention_127", before_cross_attention(2, 9, 127)),
    Case("before_ffn_5120_fp8", before_ffn(2, 7, 5120, dtype=FP8)),
    Case("plain", residual(2, 5, 127, has_gate=False, is_modulated=False)),
    Case("everything_fp8", residual(2, 5, 64, is_affine=True, dtype=FP8)),
    Case("narrow_stream", residual(2, 9, 128, stream_dtype=None)),
    Case("rows_3", residual(2, 17, 128, num_rows=3)),
    Case("rows_3_before_cross_attention", before_cross_attention(2, 17, 127, num_rows=3)),
    Case("one_token", residual(1, 1, 64)),
    Case("width_1", residual(2, 3, 1)),
    Case("empty", residual(2, 0, 64)),
    Case("strided", strided),
    Case("large_mean", residual(2, 9, 256, mean=100.0)),
    Case("large_values", before_ffn(2, 9, 256, scale=1e6)),
    Case("small_values_fp8", residual(2, 9, 256, scale=1e-9, dtype=FP8)),
    Case("infinite", stray(float("inf"))),
    Case("nan", stray(float("nan"))),
)
