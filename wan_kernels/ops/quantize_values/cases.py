"""Real shapes of Wan, odd shapes, extremes."""

from typing import Any

import torch

from wan_kernels.common.case import Build, Case, Inputs

INT8, FP8 = torch.int8, torch.float8_e4m3fn


def values(
    *shape: int,
    dtype: torch.dtype = INT8,
    tokens_per_scale: int | None = None,
    is_smooth: bool = False,
    is_permuted: bool = False,
    scale: float = 1.0,
    offset: float = 0.0,
    stray: float | None = None,
) -> Build:
    """Normal values with an offset of its own for each channel; a stray value in the middle of the last sample."""

    def build(make: Inputs) -> tuple[Any, ...]:
        v = make.normal(*shape, scale=scale)
        if offset:
            v = v + make.normal(*shape[2:], scale=offset)
        if stray is not None:
            v[-1, shape[1] // 2, shape[2] // 2, shape[3] // 2] = stray
        return v, dtype, tokens_per_scale, is_smooth, is_permuted

    return build


def fused_projection(make: Inputs) -> tuple[Any, ...]:
    """v as a slice of one tensor with q and k."""
    return make.normal(2, 33, 3, 2, 64)[:, :, 2], FP8, None, True, True


def fused_projection_blocks(make: Inputs) -> tuple[Any, ...]:
    return make.normal(2, 130, 3, 2, 40)[:, :, 2], INT8, 128, False, False


def strided(make: Inputs) -> tuple[Any, ...]:
    """Heads first, and every second channel."""
    return make.normal(2, 3, 33, 40).transpose(1, 2)[..., ::2], INT8, None, False, False


def zero_channels(make: Inputs) -> tuple[Any, ...]:
    v = make.normal(2, 40, 3, 16)
    v[:, :, 1] = 0
    return v, FP8, None, False, False


def gpu(*shape: int) -> Build:
    """As attention on Hopper reads them."""
    return values(*shape, dtype=FP8, is_smooth=True, is_permuted=True, offset=1.0)


def blocks(*shape: int, per: int = 128, **options: Any) -> Build:
    """As attention in int8 reads them."""
    return values(*shape, tokens_per_scale=per, **options)


CASES = (
    Case("wide_1.3B", values(1, 8192, 12, 128), is_heavy=True),
    Case("wide_1.3B_smooth", values(1, 8192, 12, 128, is_smooth=True), is_heavy=True),
    Case("wide_1.3B_blocks", blocks(1, 8192, 12, 128), is_heavy=True),
    Case("wide_1.3B_blocks_smooth", blocks(1, 8192, 12, 128, is_smooth=True), is_heavy=True),
    Case("720p_81f_1.3B_gpu", gpu(1, 75600, 12, 128), is_heavy=True),
    Case("720p_81f_14B", values(1, 75600, 40, 128), is_heavy=True),
    Case("720p_81f_14B_fp8", values(1, 75600, 40, 128, dtype=FP8, is_permuted=True), is_heavy=True),
    Case("720p_81f_14B_gpu", gpu(1, 75600, 40, 128), is_heavy=True),
    Case("480p_81f_14B_gpu", gpu(1, 32760, 40, 128), is_heavy=True),
    Case("720p_81f_14B_blocks", blocks(1, 75600, 40, 128), is_heavy=True),
    Case("480p_81f_14B_blocks_1024", blocks(1, 32760, 40, 128, per=1024, is_smooth=True), is_heavy=True),
    Case("tokens_127", values(1, 127, 2, 128)),
    Case("tokens_127_gpu", gpu(1, 127, 2, 128)),
    Case("tokens_128_permuted", values(2, 128, 2, 64, is_permuted=True)),
    Case("tokens_129_gpu", gpu(2, 129, 1, 64)),
    Case("tokens_129_smooth", values(2, 129, 3, 64, is_smooth=True, offset=3.0)),
    Case("tokens_1000_smooth", values(1, 1000, 1, 32, is_smooth=True, offset=3.0)),
    Case("tokens_1200", values(1, 1200, 1, 128)),
    Case("tokens_300_fp8", values(1, 300, 2, 128, dtype=FP8)),
    Case("tokens_300_blocks", blocks(2, 300, 2, 64)),
    Case("tokens_257_blocks_smooth", blocks(1, 257, 2, 32, is_smooth=True, offset=3.0)),
    Case("tokens_600_blocks_256_gpu", blocks(1, 600, 1, 40, per=256, dtype=FP8, is_smooth=True, is_permuted=True)),
    Case("tokens_1200_blocks_1152", blocks(1, 1200, 1, 128, per=1152)),
    Case("tokens_100_blocks_1024", blocks(1, 100, 3, 16, per=1024)),
    Case("head_width_33_blocks", blocks(2, 129, 3, 33, is_permuted=True)),
    Case("head_width_384_blocks", blocks(1, 130, 1, 384, is_smooth=True)),
    Case("heads_40", values(1, 33, 40, 128)),
    Case("head_width_33", values(2, 17, 3, 33, is_permuted=True)),
    Case("head_width_33_smooth", values(2, 70, 3, 33, dtype=FP8, is_smooth=True)),
    Case("head_width_384", values(1, 36, 1, 384, is_smooth=True)),
    Case("head_width_1", values(2, 9, 3, 1)),
    Case("one_token", values(1, 1, 2, 16)),
    Case("one_token_smooth", values(1, 1, 2, 16, is_smooth=True)),
    Case("no_samples", values(0, 9, 2, 16)),
    Case("no_tokens", values(2, 0, 3, 16, is_smooth=True)),
    Case("no_tokens_blocks", blocks(2, 0, 3, 16)),
    Case("fused_projection", fused_projection),
    Case("fused_projection_blocks", fused_projection_blocks),
    Case("strided", strided),
    Case("zero_channels", zero_channels),
    Case("one_huge", values(1, 40, 2, 24, stray=6e4)),
    Case("one_huge_smooth_fp8", values(1, 40, 2, 24, dtype=FP8, is_smooth=True, stray=6e4)),
    Case("large_values", values(1, 40, 2, 24, scale=1e12)),
    Case("small_values_fp8", values(1, 40, 2, 24, dtype=FP8, scale=1e-9)),
    Case("infinite", values(1, 40, 2, 24, stray=float("inf"))),
    Case("infinite_smooth", values(1, 40, 2, 24, is_smooth=True, stray=float("inf"))),
    Case("nan_fp8", values(1, 40, 2, 24, dtype=FP8, stray=float("nan"))),
    Case("infinite_blocks", blocks(2, 300, 2, 24, stray=float("inf"))),
    Case("nan_blocks_fp8", blocks(1, 300, 2, 24, dtype=FP8, stray=float("nan"))),
    Case("nan_blocks_smooth", blocks(1, 300, 2, 24, is_smooth=True, stray=float("nan"))),
    Case("nan_smooth", values(2, 40, 2, 24, is_smooth=True, stray=float("nan"))),
)
