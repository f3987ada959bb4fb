"""Real shapes of Wan's VAE, rings gone round several times, odd shapes, extremes. What nobody may read is NaN."""

import torch

from wan_kernels.common.case import Build, Case, Inputs

ONE_AROUND = (1, 1, 1, 1)


def stream(
    shape: tuple[int, int, int, int, int],
    num_out: int,
    position: int,
    num_slots: int = 2,
    kernel: tuple[int, int, int] = (3, 3, 3),
    stride: tuple[int, int, int] = (1, 1, 1),
    padding: tuple[int, int, int, int] = ONE_AROUND,
    has_bias: bool = True,
    has_norm: bool = False,
    has_residual: bool = False,
    is_channels_last: bool = True,
    scale: float = 1.0,
) -> Build:
    def build(make: Inputs) -> tuple[object, ...]:
        def video(channels: int, num_frames: int, rows: int, columns: int) -> torch.Tensor:
            x = make.normal(shape[0], channels, num_frames, rows, columns, scale=scale)
            return x.contiguous(memory_format=torch.channels_last_3d) if is_channels_last else x

        _, num_in, num_frames, rows, columns = shape
        num_history = kernel[0] - stride[0]
        ring = video(num_in, num_slots, rows, columns)
        known = {f % num_slots for f in range(max(0, position - num_history), position)}
        for slot in set(range(num_slots)) - known:
            ring[:, :, slot] = float("nan")
        weight = make.normal(num_out, num_in, *kernel, scale=(num_in * kernel[0] * kernel[1] * kernel[2]) ** -0.5)
        out_rows = (rows + padding[0] + padding[1] - kernel[1]) // stride[1] + 1
        out_columns = (columns + padding[2] + padding[3] - kernel[2]) // stride[2] + 1
        return (
            video(num_in, num_frames, rows, columns),
            weight,
            make.normal(num_out) if has_bias else None,
            ring,
            position,
            make.normal(num_in) if has_norm else None,
            video(num_out, num_frames // stride[0], out_rows, out_columns) if has_residual else None,
            list(stride),
            list(padding),
        )

    return build


def block(shape: tuple[int, int, int, int, int], num_out: int, position: int, num_slots: int = 2) -> Build:
    """The second half of a residual block: norm, convolution and sum."""
    return stream(shape, num_out, position, num_slots, has_norm=True, has_residual=True)


CASES = (
    Case("decoder_96_720p_4f", block((1, 96, 4, 720, 1280), 96, position=5), is_heavy=True),
    Case("decoder_96_120p_4f", block((1, 96, 4, 120, 208), 96, position=5), is_heavy=True),
    Case("decoder_192_60p_4f", block((1, 192, 4, 60, 104), 192, position=5), is_heavy=True),
    Case("decoder_384_30p_1f", block((1, 384, 1, 30, 52), 384, position=5), is_heavy=True),
    Case("vae22_1024_44p", block((1, 1024, 1, 44, 80), 1024, position=5), is_heavy=True),
    Case("vae22_512_176p", block((1, 512, 4, 176, 320), 512, position=5), is_heavy=True),
    Case("vae22_256_352p", block((1, 256, 4, 352, 640), 256, position=5), is_heavy=True),
    Case("second_chunk", stream((2, 8, 3, 6, 7), 12, position=4)),
    Case("block_channels_last", block((1, 8, 2, 5, 6), 8, position=3)),
    Case("first_chunk", stream((2, 8, 5, 6, 7), 12, position=0)),
    Case("first_frame", block((1, 8, 1, 6, 7), 12, position=0)),
    Case("second_frame", block((1, 8, 1, 6, 7), 12, position=1)),
    Case("wrapped_one_frame", block((1, 8, 1, 6, 7), 12, position=7)),
    Case("wrapped_long_ring", block((1, 6, 3, 4, 5), 5, position=23, num_slots=5)),
    Case("wrapped_long_chunk", stream((1, 6, 11, 4, 5), 5, position=9, num_slots=3)),
    Case("norm_only", stream((1, 20, 2, 5, 4), 33, position=6, has_norm=True)),
    Case("residual_only", stream((1, 20, 2, 5, 4), 33, position=6, has_residual=True, has_bias=False)),
    Case("pixels_4189", block((1, 8, 2, 59, 71), 20, position=2)),
    Case("middle_layer", block((1, 96, 1, 3, 4), 96, position=2)),
    Case("pointwise", stream((2, 16, 3, 5, 4), 40, 3, 0, (1, 1, 1), padding=(0, 0, 0, 0), has_norm=True)),
    Case("halve_time", stream((1, 8, 4, 3, 5), 8, 3, 2, (3, 1, 1), (2, 1, 1), (0, 0, 0, 0), has_norm=True)),
    Case("halve_all", stream((2, 4, 6, 7, 9), 6, 8, 3, (3, 3, 3), (2, 2, 2), (1, 0, 2, 1), has_residual=True)),
    Case("contiguous", stream((2, 8, 3, 6, 7), 12, 4, has_norm=True, has_residual=True, is_channels_last=False)),
    Case("zeros", stream((1, 8, 2, 5, 5), 8, position=3, has_norm=True, scale=0.0)),
    Case("empty", stream((0, 4, 3, 5, 5), 6, position=2)),
    Case("large_values", stream((1, 8, 3, 5, 5), 8, position=3, scale=1e12)),
)
