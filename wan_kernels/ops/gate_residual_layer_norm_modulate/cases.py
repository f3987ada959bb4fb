"""Real shapes of Wan, odd shapes, extremes."""

from typing import Any

import torch
from torch import Tensor

from wan_kernels.common.case import Build, Case, Inputs

FP32 = torch.float32  # of the residual stream in the model
BF16 = torch.bfloat16


def residual(
    *shape: int,
    has_gate: bool = True,
    is_modulated: bool = True,
    is_affine: bool = False,
    num_rows: int = 1,
    index_dtype: torch.dtype = torch.int32,
    stream_dtype: torch.dtype | None = FP32,
    out_dtype: torch.dtype | None = None,
    scale: float = 1.0,
    mean: float = 0.0,
) -> Build:
    """A stream (stream_dtype None: of the activations' type), what is added, and rows of one timestep or several."""

    def build(make: Inputs) -> tuple[Any, ...]:
        num_samples, num_tokens, width = shape
        x = make.normal(*shape, dtype=stream_dtype, scale=scale, mean=mean)
        y = make.normal(*shape, scale=scale)
        gate, *rows = (make.normal(num_samples, num_rows, width, dtype=FP32, scale=0.5) for _ in range(3))
        index = make.integers(num_samples, num_tokens, high=num_rows, dtype=index_dtype) if num_rows > 1 else None
        tables = (gate if has_gate else None), *(rows if is_modulated else (None, None))
        return x, y, *tables, *affine(make, width, is_affine), index, 1e-6, out_dtype

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


def from_chunks(make: Inputs) -> tuple[Any, ...]:
    """The rows as the model has them: slices of the six modulation vectors, batch expanded from one."""
    rows = make.normal(1, 1, 6, 96, dtype=FP32).expand(3, 1, 6, 96)
    x = make.normal(3, 11, 96, dtype=FP32)
    return x, make.normal(3, 11, 96), rows[:, :, 2], rows[:, :, 1], rows[:, :, 0], None, None, None, 1e-6, None


def strided(make: Inputs) -> tuple[Any, ...]:
    x, y = make.normal(2, 96, 10, dtype=FP32).mT[:, ::2], make.normal(2, 10, 100)[:, ::2, 4:]
    index = make.integers(2, 10, high=3, dtype=torch.int64)[:, ::2]
    return x, y, *(make.normal(2, 3, 192)[..., ::2] for _ in range(3)), None, None, index, 1e-6, None


CASES = (
    Case("wide_1.3B", residual(1, 8192, 1536, out_dtype=BF16), is_heavy=True),
    Case("before_cross_attention_1.3B", before_cross_attention(1, 75600, 1536, out_dtype=BF16), is_heavy=True),
    Case("before_cross_attention_14B", before_cross_attention(1, 75600, 5120, out_dtype=BF16), is_heavy=True),
    Case("before_ffn_1.3B", before_ffn(1, 75600, 1536, out_dtype=BF16), is_heavy=True),
    Case("before_ffn_14B", before_ffn(1, 75600, 5120, out_dtype=BF16), is_heavy=True),
    # No Wan has all of it; the most that a backward must keep in registers.
    Case("everything_14B", residual(1, 75600, 5120, is_affine=True, out_dtype=BF16), is_heavy=True),
    Case("720p_121f_5B_per_token", residual(1, 27280, 3072, num_rows=2, out_dtype=BF16), is_heavy=True),
    Case("tokens_127_1.3B", residual(1, 127, 1536)),
    Case("before_cross_attention_127", before_cross_attention(2, 9, 127, out_dtype=BF16)),
    Case("before_ffn_5120", before_ffn(2, 7, 5120, out_dtype=BF16)),
    Case("plain", residual(2, 5, 127, has_gate=False, is_modulated=False)),
    Case("everything", residual(2, 5, 64, is_affine=True)),
    Case("narrow_stream", residual(2, 9, 128, stream_dtype=None)),
    Case("narrow_stream_before_ffn", before_ffn(2, 9, 70, stream_dtype=None, is_affine=True)),
    Case("rows_3", residual(2, 17, 128, num_rows=3)),
    Case("rows_3_int64_affine", before_cross_attention(2, 17, 127, num_rows=3, index_dtype=torch.int64)),
    Case("rows_3_before_ffn", before_ffn(2, 17, 65, num_rows=3)),
    Case("one_token", residual(1, 1, 64)),
    Case("width_1", residual(2, 3, 1)),
    Case("empty", residual(2, 0, 64)),
    Case("from_chunks", from_chunks),
    Case("strided", strided),
    Case("large_mean", residual(2, 9, 256, mean=100.0)),
    Case("large_values", before_ffn(2, 9, 256, scale=1e6)),
    Case("small_values", residual(2, 9, 256, scale=1e-9, is_modulated=False)),
)
