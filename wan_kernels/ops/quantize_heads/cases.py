"""Real shapes of Wan, odd shapes, extremes."""

from typing import Any

from wan_kernels.common.case import Build, Case, Inputs


def heads(
    *shape: int,
    per: int = 1,
    is_smooth: bool = False,
    scale: float = 1.0,
    offset: float = 0.0,
    stray: float | None = None,
) -> Build:
    """Normal values with an offset of its own for each channel; a stray value in the middle of the last sample."""

    def build(make: Inputs) -> tuple[Any, ...]:
        x = make.normal(*shape, scale=scale)
        if offset:
            x = x + make.normal(*shape[2:], scale=offset)
        if stray is not None:
            x[-1, shape[1] // 2, shape[2] // 2, shape[3] // 2] = stray
        return x, per, is_smooth

    return build


def fused_projection(make: Inputs) -> tuple[Any, ...]:
    """k as a slice of one tensor with q and v."""
    return make.normal(2, 33, 3, 2, 64)[:, :, 1], 16, True


def fused_heads(make: Inputs) -> tuple[Any, ...]:
    """q, k and v of each head side by side."""
    return make.normal(2, 33, 3, 120)[..., 40:80], 4, True


def strided(make: Inputs) -> tuple[Any, ...]:
    """Heads first, and every second channel."""
    return make.normal(2, 3, 33, 40).transpose(1, 2)[..., ::2], 5, False


def zero_tokens(make: Inputs) -> tuple[Any, ...]:
    x = make.normal(2, 20, 3, 16)
    x[:, 4:13] = 0
    return x, 4, False


CASES = (
    Case("wide_1.3B", heads(1, 8192, 12, 128), is_heavy=True),
    Case("wide_1.3B_64", heads(1, 8192, 12, 128, per=64), is_heavy=True),
    Case("wide_1.3B_smooth", heads(1, 8192, 12, 128, is_smooth=True), is_heavy=True),
    Case("720p_81f_14B", heads(1, 75600, 40, 128), is_heavy=True),
    Case("720p_81f_14B_smooth_64", heads(1, 75600, 40, 128, per=64, is_smooth=True), is_heavy=True),
    Case("480p_81f_14B_16", heads(1, 32760, 40, 128, per=16), is_heavy=True),
    Case("480p_81f_14B_smooth_128", heads(1, 32760, 40, 128, per=128, is_smooth=True), is_heavy=True),
    Case("text_14B_smooth", heads(1, 512, 40, 128, per=64, is_smooth=True), is_heavy=True),
    Case("480p_5f_1.3B_16", heads(1, 3120, 12, 128, per=16), is_heavy=True),
    Case("tokens_127", heads(1, 127, 2, 128)),
    Case("tokens_127_16", heads(2, 127, 2, 128, per=16)),
    Case("tokens_129_smooth_128", heads(1, 129, 2, 128, per=128, is_smooth=True, offset=3.0)),
    Case("tokens_1000_smooth", heads(1, 1000, 2, 32, is_smooth=True, offset=3.0)),
    Case("heads_40_smooth", heads(1, 9, 40, 128, per=4, is_smooth=True, offset=3.0)),
    Case("head_width_33", heads(2, 17, 3, 33)),
    Case("head_width_33_smooth_7", heads(2, 70, 3, 33, per=7, is_smooth=True, offset=3.0)),
    Case("head_width_1", heads(2, 9, 3, 1, per=2)),
    Case("one_token", heads(1, 1, 2, 16)),
    Case("one_token_smooth", heads(1, 1, 2, 16, per=64, is_smooth=True)),
    Case("no_samples", heads(0, 9, 2, 16)),
    Case("no_tokens", heads(2, 0, 3, 16, per=16, is_smooth=True)),
    Case("fused_projection", fused_projection),
    Case("fused_heads", fused_heads),
    Case("strided", strided),
    Case("zero_tokens", zero_tokens),
    Case("one_huge", heads(1, 40, 2, 24, stray=6e4)),
    Case("one_huge_smooth", heads(1, 40, 2, 24, per=16, is_smooth=True, stray=6e4)),
    Case("large_values", heads(1, 40, 2, 24, per=16, scale=1e12)),
    Case("small_values", heads(1, 40, 2, 24, scale=1e-9)),
    Case("infinite", heads(1, 40, 2, 24, stray=float("inf"))),
    Case("infinite_smooth", heads(1, 40, 2, 24, per=16, is_smooth=True, stray=float("inf"))),
    Case("nan_16", heads(2, 40, 2, 24, per=16, stray=float("nan"))),
    Case("nan_smooth", heads(2, 40, 2, 24, is_smooth=True, stray=float("nan"))),
)
