"""Real shapes of the decoder, odd shapes, extremes."""

from typing import Any

import torch

from wan_kernels.common.case import Build, Case, Inputs


def frames(
    shape: tuple[int, int, int, int, int],
    num_out: int,
    is_channels_last: bool = True,
    has_bias: bool = True,
    scale: float = 1.0,
) -> Build:
    def build(make: Inputs) -> tuple[Any, ...]:
        x = make.normal(*shape, scale=scale)
        if is_channels_last:
            x = x.contiguous(memory_format=torch.channels_last_3d)
        weight = make.normal(num_out, shape[1], 3, 3, scale=(9 * shape[1]) ** -0.5)
        return x, weight, make.normal(num_out) if has_bias else None

    return build


def sliced(make: Inputs) -> tuple[Any, ...]:
    x = make.normal(2, 6, 4, 5, 12)[:, ::2, 1:, :, ::2]
    return x, make.normal(4, 3, 3, 6)[..., ::2], make.normal(8)[::2]


CASES = (
    Case("decoder_192_360p_4f", frames((1, 192, 4, 180, 320), 96), is_heavy=True),
    Case("decoder_384_90p_1f", frames((1, 384, 1, 90, 160), 192), is_heavy=True),
    Case("decoder_192_60p_4f", frames((1, 192, 4, 60, 104), 96), is_heavy=True),
    Case("vae21_192_360p", frames((1, 192, 4, 360, 640), 96), is_heavy=True),
    Case("vae21_384_180p", frames((1, 384, 4, 180, 320), 192), is_heavy=True),
    Case("vae22_1024_44p", frames((1, 1024, 1, 44, 80), 1024), is_heavy=True),
    Case("vae22_512_176p", frames((1, 512, 4, 176, 320), 512), is_heavy=True),
    Case("contiguous", frames((2, 8, 3, 5, 4), 6, is_channels_last=False)),
    Case("channels_last", frames((2, 8, 3, 5, 4), 6)),
    Case("no_bias_channels_last", frames((1, 20, 2, 3, 7), 33, has_bias=False)),
    Case("pixels_4216_channels_last", frames((1, 6, 1, 31, 34), 5)),
    Case("one_pixel", frames((1, 3, 1, 1, 1), 2, is_channels_last=False)),
    Case("empty", frames((0, 4, 3, 5, 5), 6, is_channels_last=False)),
    Case("no_frames", frames((2, 4, 0, 5, 5), 6, is_channels_last=False)),
    Case("sliced", sliced),
    Case("width_192_to_96_channels_last", frames((1, 192, 1, 3, 4), 96)),
    Case("width_256_to_160_channels_last", frames((1, 256, 1, 6, 9), 160)),
    Case("large_values", frames((1, 8, 2, 5, 5), 8, scale=1e12)),
)
