"""Real shapes of Wan's VAE, odd shapes, extremes."""

from typing import Any

import torch

from wan_kernels.common.case import Build, Case, Inputs

ONE_AROUND = (1, 1, 1, 1)


def video(
    shape: tuple[int, int, int, int, int],
    num_out: int,
    kernel: tuple[int, int, int],
    stride: tuple[int, int, int] = (1, 1, 1),
    padding: tuple[int, int, int, int] = (0, 0, 0, 0),
    has_cache: bool = False,
    has_bias: bool = True,
    return_cache: bool = True,
    is_channels_last: bool = False,
    scale: float = 1.0,
) -> Build:
    def build(make: Inputs) -> tuple[Any, ...]:
        num_samples, num_in, _, height, width = shape
        fan_in = num_in * kernel[0] * kernel[1] * kernel[2]
        x = make.normal(*shape, scale=scale)
        weight = make.normal(num_out, num_in, *kernel, scale=fan_in**-0.5)
        bias = make.normal(num_out) if has_bias else None
        cache = make.normal(num_samples, num_in, kernel[0] - stride[0], height, width) if has_cache else None
        if is_channels_last:
            x = x.contiguous(memory_format=torch.channels_last_3d)
            cache = None if cache is None else cache.contiguous(memory_format=torch.channels_last_3d)
        return x, weight, bias, cache, list(stride), list(padding), return_cache

    return build


def sliced(make: Inputs) -> tuple[Any, ...]:
    x = make.normal(2, 6, 7, 5, 12)[:, ::2, 1:, :, ::2]
    return x, make.normal(4, 3, 3, 3, 6)[..., ::2], make.normal(8)[::2], None, [1, 1, 1], list(ONE_AROUND), True


def same(
    shape: tuple[int, int, int, int, int],
    num_out: int,
    has_cache: bool = False,
    has_bias: bool = True,
    return_cache: bool = True,
    is_channels_last: bool = False,
    scale: float = 1.0,
) -> Build:
    """3 x 3 x 3 that keeps the size: nearly every layer of the VAE."""
    return video(
        shape, num_out, (3, 3, 3), (1, 1, 1), ONE_AROUND, has_cache, has_bias, return_cache, is_channels_last, scale
    )


def layer(
    shape: tuple[int, int, int, int, int],
    num_out: int,
    kernel: tuple[int, int, int] = (3, 3, 3),
    stride: tuple[int, int, int] = (1, 1, 1),
) -> Build:
    """A layer in the middle of a video, channels-last, padded so that it keeps the size or divides it by the stride."""
    rows, columns = kernel[1] // 2, kernel[2] // 2
    padding = (0, 1, 0, 1) if stride[1] == 2 else (rows, rows, columns, columns)
    return video(shape, num_out, kernel, stride, padding, kernel[0] > stride[0], is_channels_last=True)


def halve(shape: tuple[int, int, int, int, int], num_out: int, is_channels_last: bool = False) -> Build:
    """The encoder's step to half the rows and columns."""
    return video(shape, num_out, (1, 3, 3), (1, 2, 2), (0, 1, 0, 1), is_channels_last=is_channels_last)


CASES = (
    Case("decoder_96_720p_4f", same((1, 96, 4, 720, 1280), 96, has_cache=True), is_heavy=True),
    Case("decoder_192_360p_4f", same((1, 192, 4, 360, 640), 192, has_cache=True), is_heavy=True),
    Case("decoder_384_90p_1f", same((1, 384, 1, 90, 160), 384, has_cache=True), is_heavy=True),
    Case("decoder_96_120p_4f", same((1, 96, 4, 120, 208), 96, has_cache=True, is_channels_last=True), is_heavy=True),
    Case("decoder_192_60p_4f", same((1, 192, 4, 60, 104), 192, has_cache=True, is_channels_last=True), is_heavy=True),
    Case("decoder_384_30p_1f", same((1, 384, 1, 30, 52), 384, has_cache=True, is_channels_last=True), is_heavy=True),
    Case("tiny_decoder_16_96p_4f", same((1, 16, 4, 96, 96), 16, has_cache=True), is_heavy=True),
    # The 2.1 VAE at 720p, a latent frame at a time, then the 2.2 VAE, each with the layers that are special.
    Case("vae21_96_720p", layer((1, 96, 4, 720, 1280), 96), is_heavy=True),
    Case("vae21_192_360p", layer((1, 192, 4, 360, 640), 192), is_heavy=True),
    Case("vae21_384_180p", layer((1, 384, 2, 180, 320), 384), is_heavy=True),
    Case("vae21_384_90p", layer((1, 384, 1, 90, 160), 384), is_heavy=True),
    Case("vae21_3_to_96_720p", layer((1, 3, 4, 720, 1280), 96), is_heavy=True),
    Case("vae21_96_to_3_720p", layer((1, 96, 4, 720, 1280), 3), is_heavy=True),
    Case("vae21_16_to_384_90p", layer((1, 16, 1, 90, 160), 384), is_heavy=True),
    Case("vae21_pointwise_192_to_384_180p", layer((1, 192, 2, 180, 320), 384, (1, 1, 1)), is_heavy=True),
    Case("vae21_halve_96_720p", layer((1, 96, 4, 720, 1280), 96, (1, 3, 3), (1, 2, 2)), is_heavy=True),
    Case("vae21_halve_time_192_180p", layer((1, 192, 4, 180, 320), 192, (3, 1, 1), (2, 1, 1)), is_heavy=True),
    Case("vae21_double_time_384_90p", layer((1, 384, 1, 90, 160), 768, (3, 1, 1)), is_heavy=True),
    Case("vae22_1024_44p", layer((1, 1024, 1, 44, 80), 1024), is_heavy=True),
    Case("vae22_512_176p", layer((1, 512, 4, 176, 320), 512), is_heavy=True),
    Case("vae22_256_352p", layer((1, 256, 4, 352, 640), 256), is_heavy=True),
    Case("vae22_160_352p", layer((1, 160, 4, 352, 640), 160), is_heavy=True),
    Case("vae22_320_176p", layer((1, 320, 4, 176, 320), 320), is_heavy=True),
    Case("vae22_640_88p", layer((1, 640, 2, 88, 160), 640), is_heavy=True),
    Case("vae22_12_to_160_352p", layer((1, 12, 4, 352, 640), 160), is_heavy=True),
    Case("vae22_256_to_12_352p", layer((1, 256, 4, 352, 640), 12), is_heavy=True),
    Case("vae22_48_to_1024_44p", layer((1, 48, 1, 44, 80), 1024), is_heavy=True),
    Case("first_layer_chunk", same((1, 3, 4, 6, 7), 96, has_cache=True)),
    Case("middle_layer", same((1, 96, 2, 5, 4), 96)),
    Case("no_history", same((2, 8, 5, 6, 7), 12, return_cache=False)),
    Case("short_chunk", same((2, 8, 1, 6, 7), 12, has_cache=True)),
    Case("image", same((3, 8, 1, 6, 7), 12)),
    Case("channels_last", same((2, 8, 5, 6, 7), 12, has_cache=True, is_channels_last=True)),
    Case("pixels_4189_channels_last", same((1, 8, 2, 59, 71), 20, has_cache=True, is_channels_last=True)),
    Case("frames_19_channels_last", same((2, 3, 19, 4, 6), 34, is_channels_last=True)),
    Case("pointwise_channels_last", video((2, 16, 3, 5, 4), 40, kernel=(1, 1, 1), is_channels_last=True)),
    Case(
        "halve_time_channels_last",
        video((1, 8, 4, 3, 5), 8, (3, 1, 1), (2, 1, 1), has_cache=True, is_channels_last=True),
    ),
    Case(
        "halve_all_channels_last", video((2, 4, 6, 7, 9), 6, (3, 3, 3), (2, 2, 2), (1, 0, 2, 1), is_channels_last=True)
    ),
    Case("image_channels_last", same((2, 8, 1, 6, 7), 12, is_channels_last=True)),
    Case("no_bias", same((1, 8, 3, 6, 7), 12, has_bias=False)),
    Case("pointwise", video((2, 16, 3, 5, 4), 8, kernel=(1, 1, 1))),
    Case("halve_frames", halve((1, 8, 3, 9, 7), 8)),
    Case("halve_frames_channels_last", halve((2, 8, 3, 8, 6), 8, is_channels_last=True)),
    Case("halve_time", video((1, 8, 4, 3, 5), 8, kernel=(3, 1, 1), stride=(2, 1, 1), has_cache=True)),
    Case("halve_time_first", video((1, 8, 4, 3, 5), 8, kernel=(3, 1, 1), stride=(2, 1, 1))),
    Case("halve_all", video((2, 4, 6, 7, 9), 6, kernel=(3, 3, 3), stride=(2, 2, 2), padding=(1, 0, 2, 1))),
    Case("no_overlap", video((1, 4, 4, 5, 5), 6, kernel=(2, 2, 2), stride=(2, 2, 2))),
    Case("one_pixel", video((1, 1, 1, 1, 1), 1, kernel=(1, 1, 1))),
    Case("sides_127", video((1, 2, 3, 1, 127), 2, kernel=(3, 1, 3), padding=(0, 0, 1, 1))),
    Case("empty", same((0, 4, 3, 5, 5), 6)),
    Case("sliced", sliced),
    Case("width_96_channels_last", layer((1, 96, 2, 5, 7), 96)),
    Case("width_3_to_96_channels_last", layer((1, 3, 1, 5, 4), 96)),
    Case("width_96_to_3_channels_last", layer((2, 96, 1, 3, 4), 3)),
    Case("width_12_to_160_channels_last", layer((1, 12, 1, 4, 5), 160, (1, 3, 3))),
    Case("width_33_to_12_channels_last", layer((1, 33, 2, 5, 9), 12, (3, 1, 3))),
    Case("width_160_to_192_channels_last", layer((1, 160, 1, 13, 11), 192, (3, 1, 1))),
    Case("width_192_to_384_channels_last", layer((1, 192, 2, 4, 5), 384, (3, 1, 1))),
    Case("width_384_halve_channels_last", layer((1, 384, 1, 5, 6), 192, (1, 3, 3), (1, 2, 2))),
    Case("width_256_to_320_channels_last", layer((1, 256, 4, 3, 5), 320, (3, 1, 1), (2, 1, 1))),
    Case("width_512_to_640_channels_last", layer((2, 512, 1, 3, 5), 640, (1, 1, 1))),
    Case("width_640_to_1024_channels_last", layer((1, 640, 1, 4, 5), 1024, (1, 1, 1))),
    Case("width_1024_to_256_channels_last", layer((1, 1024, 1, 3, 3), 256, (1, 1, 1))),
    Case("large_values", same((1, 8, 3, 5, 5), 8, scale=1e12)),
)
