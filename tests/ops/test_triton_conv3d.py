"""What no case of a room asks of the convolutions' Triton kernel: every tile, a ring with residual, what is copied."""

import re

import pytest
import torch
from torch import Tensor

import wan_kernels as wk
from wan_kernels import dispatch
from wan_kernels.common import triton_conv3d
from wan_kernels.common.conv3d import out_shape
from wan_kernels.common.triton import is_interpreting
from wan_kernels.common.triton_conv3d import Tile, channels_for, conv3d_launch, empty_video, tile_for, tiles_for

# On a GPU conformance runs the compiled kernel instead; without one, as in CI, these always run.
needs_interpreter = pytest.mark.skipif(
    not is_interpreting(), reason="a GPU is here: kernels are compiled for it, and nothing is interpreted"
)
TILES = sorted({tile for num_out in (16, 32, 48, 64, 96, 160, 192, 256) for tile in tiles_for(num_out, 2)}, key=str)
# What is the VAEs' own: the 2.1 decoder's and encoder's widths, then those of 2.2.
WIDTHS = (96, 192, 384, 768, 160, 256, 320, 512, 640, 1024, 2048)


def video(*shape: int, seed: int = 0) -> Tensor:
    x = torch.randn(shape, generator=torch.Generator().manual_seed(seed))
    return x.contiguous(memory_format=torch.channels_last_3d)


@pytest.mark.parametrize("num_out", WIDTHS)
@pytest.mark.parametrize("num_bytes", [2, 4])
def test_no_column_of_the_vaes_is_wasted(num_out: int, num_bytes: int) -> None:
    tiles = tiles_for(num_out, num_bytes)
    # Factors in float32 leave room for 96 columns at most, and 64 do not divide 160.
    wasted = 32 if (num_out, num_bytes) == (160, 4) else 0
    assert {-num_out % tile.columns for tile in tiles} == {wasted}


@pytest.mark.parametrize("num_in", WIDTHS)
def test_no_channel_of_the_vaes_is_wasted(num_in: int) -> None:
    assert num_in % channels_for(num_in, 2) == 0
    assert channels_for(num_in, 2) >= 32


def test_every_number_of_columns_has_a_tile() -> None:
    for num_out in range(1, 400):
        for num_bytes in (2, 4):
            assert tiles_for(num_out, num_bytes)


@pytest.mark.parametrize(
    ("num_frames", "num_pixels", "num_out", "wanted"),
    [
        (4, 720 * 1280, 96, Tile(256, 64, 32)),
        (4, 360 * 640, 192, Tile(128, 128, 64)),
        (1, 90 * 160, 384, Tile(128, 128, 64)),
        (1, 30 * 52, 384, Tile(64, 64, 32)),
        (4, 352 * 640, 160, Tile(128, 128, 32)),
        (1, 44 * 80, 1024, Tile(128, 128, 128)),
    ],
)
def test_tiles_fill_the_gpu(num_frames: int, num_pixels: int, num_out: int, wanted: Tile) -> None:
    assert tile_for(num_frames, num_pixels, num_out, 2, torch.device("cuda")) == wanted


@needs_interpreter
@pytest.mark.parametrize("tile", TILES, ids=str)
def test_every_tile_gives_the_convolution(tile: Tile, monkeypatch: pytest.MonkeyPatch) -> None:
    """More than one tile of pixels and of columns, neither full; frames of a history and none before it."""
    monkeypatch.setattr(triton_conv3d, "tile_for", lambda *_: tile)
    num_out = tile.columns + tile.width // 2
    x, cache = video(1, 16, 1, 2, tile.pixels // 2 + 3), video(1, 16, 2, 2, tile.pixels // 2 + 3, seed=1)
    weight, bias = video(num_out, 16, 3, 1, 1, seed=2), torch.randn(num_out)
    wanted = wk.causal_conv3d(x, weight, bias, cache)
    with dispatch.use_backend(causal_conv3d="triton"):
        torch.testing.assert_close(wk.causal_conv3d(x, weight, bias, cache), wanted, rtol=1e-4, atol=1e-4)


def launch_of(x: Tensor, history: Tensor | None, weight: Tensor, position: int, residual: Tensor | None = None):
    out = empty_video(out_shape(x, weight, (1, 1, 1), (0, 0, 0, 0)), x)
    return conv3d_launch(
        x, history, weight, None, out, position=position, stride=(1, 1, 1), padding=(0, 0), residual=residual
    )


@needs_interpreter
@pytest.mark.parametrize("position", [1, 2, 7, 8, 9])
@pytest.mark.parametrize("num_slots", [2, 5])
def test_frames_before_x_are_found_in_their_slots(num_slots: int, position: int) -> None:
    frames, weight = video(2, 8, 11, 3, 4), video(8, 8, 3, 1, 1, seed=1)
    ring = video(2, 8, num_slots, 3, 4).fill_(float("nan"))
    for frame in range(max(0, position - 2), position):
        ring[:, :, frame % num_slots] = frames[:, :, frame]
    x = frames[:, :, position:].contiguous(memory_format=torch.channels_last_3d)
    residual = video(2, 8, x.shape[2], 3, 4, seed=2)
    launch = launch_of(x, ring, weight, position, residual)
    launch.run()
    wanted = wk.causal_conv3d(frames, weight)[:, :, position:] + residual
    torch.testing.assert_close(launch.args["out"], wanted, rtol=1e-4, atol=1e-5)


def test_what_is_channels_last_is_read_where_it_lies() -> None:
    x, cache, weight = video(1, 8, 2, 3, 4), video(1, 8, 2, 3, 4), video(8, 8, 3, 3, 3)
    launch = launch_of(x, cache, weight, 2)
    assert [launch.args[name] for name in ("x", "history", "weight")] == [x, cache, weight]
    other = launch_of(x, cache.contiguous(), weight.contiguous(), 2)
    for name in ("history", "weight"):
        assert other.args[name].is_contiguous(memory_format=torch.channels_last_3d)
        assert torch.equal(other.args[name], launch.args[name])


@needs_interpreter
def test_frames_before_the_video_are_not_read() -> None:
    """Unlike zeros they do not meet infinite weights: as the reference does with an image."""
    weight = video(8, 8, 3, 1, 1)
    weight[:, :, 0] = float("inf")
    launch = launch_of(video(1, 8, 2, 3, 4), None, weight, 0)
    launch.run()
    assert launch.args["out"].isfinite().all()


@pytest.mark.parametrize(
    ("x", "weight", "reason"),
    [
        (video(1, 8, 2, 3, 4).contiguous(), video(8, 8, 1, 1, 1), "needs x in channels-last order"),
        (video(1, 8, 1, 8, 8), video(4, 8, 1, 4, 8), "takes windows of at most 31 taps in a frame, got 32"),
        (video(1, 8, 2, 3, 4).double(), video(8, 8, 1, 1, 1).double(), "has no float64 kernel"),
    ],
)
@needs_interpreter
def test_says_what_it_does_not_take(x: Tensor, weight: Tensor, reason: str) -> None:
    with dispatch.use_backend(causal_conv3d="triton"), pytest.raises(RuntimeError, match=re.escape(reason)):
        wk.causal_conv3d(x, weight)
