"""Real shapes of Wan's VAE, odd shapes, extremes."""

from typing import Any

import torch

from wan_kernels.common.case import Build, Case, Inputs

FORMATS = {4: torch.channels_last, 5: torch.channels_last_3d}


def pixels(
    *shape: int,
    apply_silu: bool = True,
    is_channels_last: bool = False,
    weight_dtype: torch.dtype | None = None,
    scale: float = 1.0,
) -> Build:
    def build(make: Inputs) -> tuple[Any, ...]:
        x = make.normal(*shape, scale=scale)
        if is_channels_last:
            x = x.contiguous(memory_format=FORMATS[len(shape)])
        return x, make.normal(shape[1], dtype=weight_dtype, mean=1.0, scale=0.2), apply_silu

    return build


def frames_first(make: Inputs) -> tuple[Any, ...]:
    """Dense, neither contiguous nor channels-last: [B, T, C, Y, X] in memory."""
    return make.normal(2, 3, 24, 4, 5).transpose(1, 2), make.normal(24), True


def sliced(make: Inputs) -> tuple[Any, ...]:
    return make.normal(2, 24, 5, 8, 9)[:, ::2, 1:, :, ::2], make.normal(12), True


def with_zero_pixels(make: Inputs) -> tuple[Any, ...]:
    x, weight, apply_silu = pixels(2, 16, 2, 5, 5)(make)
    x[:, :, 1, 2:4] = 0
    return x, weight, apply_silu


CASES = (
    Case("decoder_720p_4f", pixels(1, 96, 4, 720, 1280, is_channels_last=True), is_heavy=True),
    Case("decoder_360p_4f", pixels(1, 192, 4, 360, 640, is_channels_last=True), is_heavy=True),
    Case("decoder_90p_1f", pixels(1, 384, 1, 90, 160, is_channels_last=True), is_heavy=True),
    Case("wide_1.3B", pixels(1, 1536, 8, 32, 32, is_channels_last=True), is_heavy=True),
    Case("encoder_360p_4f_contiguous", pixels(1, 192, 4, 360, 640), is_heavy=True),
    Case("encoder_96", pixels(1, 96, 2, 7, 9)),
    Case("encoder_96_channels_last", pixels(1, 96, 2, 7, 9, is_channels_last=True)),
    Case("frame_384", pixels(2, 384, 5, 3, apply_silu=False)),
    Case("frame_384_channels_last", pixels(2, 384, 5, 3, apply_silu=False, is_channels_last=True)),
    Case("channels_127", pixels(2, 127, 1, 3, 5, weight_dtype=torch.float32)),
    Case("channels_1", pixels(2, 1, 3, 3, 3)),
    Case("one_pixel", pixels(1, 16, 1, 1, 1)),
    Case("pixels_127_channels_last", pixels(1, 20, 1, 1, 127, is_channels_last=True)),
    Case("empty", pixels(2, 16, 0, 3, 3)),
    Case("frames_first", frames_first),
    Case("sliced", sliced),
    Case("large_values", pixels(1, 32, 2, 3, 3, scale=1e12)),
    Case("small_values", pixels(1, 32, 2, 3, 3, scale=1e-6)),
    Case("zero_pixels", with_zero_pixels),
)
