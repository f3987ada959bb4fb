"""Real shapes of Wan, odd shapes, extremes."""

from typing import Any

import torch

from wan_kernels.common.case import Build, Case, Inputs


def gated(
    *shape: int,
    num_rows: int = 1,
    stream_dtype: torch.dtype | None = torch.float32,
    gate_dtype: torch.dtype | None = torch.float32,
    index_dtype: torch.dtype = torch.int32,
    scale: float = 1.0,
) -> Build:
    """A residual stream and gates, float32 unless told otherwise (None: the activations' dtype), and y."""

    def build(make: Inputs) -> tuple[Any, ...]:
        num_samples, num_tokens, width = shape
        x = make.normal(*shape, dtype=stream_dtype, scale=scale)
        gate = make.normal(num_samples, num_rows, width, dtype=gate_dtype)
        index = make.integers(num_samples, num_tokens, high=num_rows, dtype=index_dtype) if num_rows > 1 else None
        return x, make.normal(*shape, scale=scale), gate, index

    return build


def strided(make: Inputs) -> tuple[Any, ...]:
    gates = make.normal(1, 1, 6, 96, dtype=torch.float32).expand(2, 1, 6, 96)
    return make.normal(2, 96, 11, dtype=torch.float32).mT, make.normal(2, 22, 100)[:, ::2, 4:], gates[:, :, 2], None


CASES = (
    Case("wide_1.3B", gated(1, 8192, 1536), is_heavy=True),
    Case("720p_81f_1.3B", gated(1, 75600, 1536), is_heavy=True),
    Case("720p_81f_14B", gated(1, 75600, 5120), is_heavy=True),
    Case("720p_121f_5B_per_token", gated(1, 27280, 3072, num_rows=2), is_heavy=True),
    Case("tokens_127_1.3B", gated(1, 127, 1536)),
    Case("tokens_7_14B", gated(2, 7, 5120)),
    Case("narrow_stream", gated(2, 9, 128, stream_dtype=None)),
    Case("all_one_dtype", gated(2, 9, 128, stream_dtype=None, gate_dtype=None)),
    Case("rows_3", gated(2, 17, 128, num_rows=3)),
    Case("rows_3_int64", gated(2, 17, 127, num_rows=3, index_dtype=torch.int64)),
    Case("one_token", gated(1, 1, 1)),
    Case("width_127", gated(3, 5, 127)),
    Case("empty", gated(2, 0, 64)),
    Case("strided", strided),
    Case("large_values", gated(2, 9, 256, scale=1e12)),
)
