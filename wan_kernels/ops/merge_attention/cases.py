"""Real shapes of Wan, odd shapes, extremes."""

from typing import Any

import torch

from wan_kernels.common.case import Build, Case, Inputs

EMPTY = float("-inf")


def parts(
    num_samples: int,
    num_tokens: int,
    num_heads: int,
    head_width: int = 128,
    *,
    sum_dtype: torch.dtype | None = None,
    centers: tuple[float, float] = (0.0, 0.0),
    spread: float = 1.0,
) -> Build:
    """Two parts whose log-sum-exps lie `spread` about their centers; out_a in `sum_dtype`, None: as out_b."""

    def build(make: Inputs) -> tuple[Any, ...]:
        shape = num_samples, num_tokens, num_heads, head_width
        out_a, out_b = make.normal(*shape, dtype=sum_dtype), make.normal(*shape)
        lse_a, lse_b = (
            make.normal(num_samples, num_heads, num_tokens, dtype=torch.float32, scale=spread, mean=center)
            for center in centers
        )
        return out_a, lse_a, out_b, lse_b

    return build


def without_keys(make: Inputs) -> tuple[Any, ...]:
    """Rows where a part, or both, have no keys; what those hold is NaN, as 0 / 0 leaves it."""
    out_a, lse_a, out_b, lse_b = parts(2, 9, 3, 32)(make)
    lse_a[..., ::2] = EMPTY
    lse_b[..., ::3] = EMPTY
    out_a[:, ::2], out_b[:, ::3] = float("nan"), float("nan")
    return out_a, lse_a, out_b, lse_b


def strided(make: Inputs) -> tuple[Any, ...]:
    """Heads first, every second value of a row, and log-sum-exps of the tokens before the heads."""
    out_a, out_b = make.normal(2, 3, 17, 32).transpose(1, 2), make.normal(2, 17, 3, 64)[..., ::2]
    lse_a, lse_b = (make.normal(2, 17, 6, dtype=torch.float32)[..., ::2].mT for _ in range(2))
    return out_a, lse_a, out_b, lse_b


CASES = (
    Case("720p_81f_14B", parts(1, 75600, 40), is_heavy=True),
    Case("720p_81f_14B_float_sum", parts(1, 75600, 40, sum_dtype=torch.float32), is_heavy=True),
    Case("480p_81f_14B", parts(1, 32760, 40), is_heavy=True),
    Case("480p_5f_1.3B", parts(1, 3120, 12), is_heavy=True),
    Case("tokens_127", parts(1, 127, 3)),
    Case("float_sum", parts(2, 9, 4, 64, sum_dtype=torch.float32)),
    Case("half_sum", parts(2, 9, 4, 64, sum_dtype=torch.float16)),
    Case("head_width_127", parts(2, 5, 3, 127)),
    Case("head_width_8", parts(1, 33, 5, 8)),
    Case("one_of_each", parts(1, 1, 1, 1)),
    Case("no_tokens", parts(2, 0, 4)),
    Case("no_samples", parts(0, 9, 4)),
    Case("strided", strided),
    Case("without_keys", without_keys),
    Case("equal", parts(1, 9, 4, 32, centers=(3.0, 3.0), spread=0.0)),
    Case("large", parts(1, 9, 4, 32, centers=(1e4, 1e4))),
    Case("very_negative", parts(1, 9, 4, 32, centers=(-1e4, -1e4), spread=30.0)),
    # One part outweighs the other by more than float32 can say: its gradients are 0, and their floor needs a scale.
    Case("far_apart", parts(1, 9, 4, 32, centers=(1e4, -1e4)), min_scale=1.0),
)
