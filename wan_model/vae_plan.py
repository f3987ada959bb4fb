"""What the VAE works on at a time: how many latent frames, and of frames that do not fit how large a tile.

Model of the peak: the network itself is traced on meta tensors for chunks of 1 and of 2 latent frames, in the third of
three chunks, when every cache is filled; from there memory grows by the same amount with each frame. Against the
resident memory of a process, in MB, traced / measured, with 2 CPU threads, the tiny VAE, 832x480, float32:

    chunk                              1             2             4
    decode, torch's convolution    796 /  813   1176 / 1179   1935 / 1829
    decode, ours in C++            744 /  545   1072 /  663   1726 /  986
    encode, torch's convolution    570 /  624    896 /  826   1548 / 1391
    encode, ours in C++            538 /  340    883 /  508   1574 /  917

The trace is that of the reference, so kernels that need no copies stay below it. It grows with the area of a frame and
with nothing else, so that the trace of whole frames tells that of any tile.
"""

import math
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from itertools import product
from typing import Literal

import torch
from torch import Tensor

from wan_model.config import VAEConfig
from wan_model.plan import gigabytes, on_meta
from wan_model.tracing import trace
from wan_model.vae import WanVAE
from wan_model.vae_stream import check_sides, workable_side_above
from wan_model.vae_tiles import DEFAULT_OVERLAP, Tiling, at_most, evenly, roomy_folder, whole

Direction = Literal["encode", "decode", "roundtrip"]
# Where frames are cut: into tiles of this width and height in pixels, not at all, or as free memory asks for.
TileChoice = tuple[int, int] | Literal["auto", "none"]

# What kernels take inside themselves and the allocator keeps, over what is traced: at most 10 % in the table above.
# Some 10 MB come on top at any size, and torch pads layers narrower than 16 channels, to 1.8 times what is traced.
MARGIN = 1.25
# More at a time spreads the cost of a call over more frames, which pays where frames are small: on 2 CPU threads and
# torch's convolution the tiny VAE encoded 149 frames/s of 96x96 one latent at a time, 233 by fours, 196 by eights; of
# 832x480 4.7 and 3.4. Beyond this many bytes a CPU works on one at a time. Not measured on a GPU.
MAX_CHUNK = 4
MAX_CPU_BYTES = 500 * 10**6
# Whole frames, float32, alive at once while they are read, or blended and turned into bytes.
NUM_FRAME_COPIES = 3


@dataclass(frozen=True)
class Costs:
    """Bytes of a stream of whole frames: of one latent frame at a time, of each further one, and of pixels alone."""

    first: int
    further: int
    pixels: int

    def peak(self, tiling: Tiling, chunk: int) -> int:
        """Of one tile's stream, or of the whole frames that are cut into tiles or blended from them."""
        stream = int(tiling.share * (self.first + (chunk - 1) * self.further))
        return stream if tiling.num_tiles == 1 else max(stream, chunk * self.pixels)

    def longest_chunk(self, tiling: Tiling, usable_bytes: int) -> int:
        """Up to where more is no faster; 1 where nothing fits."""
        return next((n for n in range(MAX_CHUNK, 1, -1) if self.peak(tiling, n) <= usable_bytes), 1)


@dataclass(frozen=True)
class VAEPlan:
    """Latent frames at a time, tiles, the bytes of memory at the peak (weights not counted), and why, in one line."""

    chunk: int
    tiling: Tiling
    peak_bytes: int
    why: str


def plan_vae(
    vae: WanVAE,
    height: int,
    width: int,
    free_bytes: int | None,
    *,
    direction: Direction = "roundtrip",
    chunk: int | None = None,
    tile: TileChoice = "auto",
    overlap: int | None = None,
    num_frames: int | None = None,
) -> VAEPlan:
    """Whole frames where they fit, else the tiles of least work that fit; then the longest chunk that fits and pays.

    height, width: of the video, in pixels. direction: a roundtrip encodes first and decodes then. free_bytes: None
        where nobody knows; then whole frames, one latent at a time. chunk, tile: obeyed where given. overlap: of
        tiles, in pixels, `DEFAULT_OVERLAP` latents where not given. num_frames: of the video, None where nobody knows.
    Raises: ValueError where not even one latent frame of the smallest tile fits, or not on the disk what tiles leave
        there, or a tile is no multiple of the VAE's stride or not twice as large as the overlap.
    """
    stride = vae.config.spatial_stride
    check_sides(height, width, stride)
    check_tile(tile, overlap, stride)
    frame, margin = (height // stride, width // stride), DEFAULT_OVERLAP if overlap is None else overlap // stride
    costs = costs_of(vae.config, height, width, vae.dtype, direction)
    task = f"{direction} at {width}x{height}"
    if isinstance(tile, tuple):
        tiling = at_most((tile[1] // stride, tile[0] // stride), frame, margin)
    elif tile == "none" and chunk is not None:
        tiling = whole(*frame)
    else:
        choices = [whole(*frame)] if tile == "none" else candidates(frame, margin)
        tiling = pick(choices, costs, chunk or 1, free_bytes, task)
    if chunk is None:
        limit = MAX_CPU_BYTES if vae.conv2.weight.device.type == "cpu" else math.inf
        chunk = costs.longest_chunk(tiling, int(min(free_bytes or 0, limit)))
    disk = disk_line(vae, tiling, num_frames, direction)
    return VAEPlan(chunk, tiling, costs.peak(tiling, chunk), why(task, costs, tiling, chunk, free_bytes, stride) + disk)


def pick(choices: list[Tiling], costs: Costs, chunk: int, free_bytes: int | None, task: str) -> Tiling:
    """The first choice that fits. Raises: ValueError where none does."""
    if free_bytes is None:
        return choices[0]
    fitting = (tiling for tiling in choices if costs.peak(tiling, chunk) <= free_bytes)
    if (found := next(fitting, None)) is not None:
        return found
    least = min(costs.peak(tiling, chunk) for tiling in choices)
    in_tiles = " in the smallest tiles" if len(choices) > 1 else ""
    raise ValueError(
        f"[memory] {task} must have {gigabytes(least)} free at {chunk} latent frame{'s' if chunk > 1 else ''} at a time"
        f"{in_tiles}, got {gigabytes(free_bytes)}; make the video smaller, or choose --dtype bf16"
    )


def why(task: str, costs: Costs, tiling: Tiling, chunk: int, free_bytes: int | None, stride: int) -> str:
    peak = costs.peak(tiling, chunk)
    of_free = ", free memory unknown" if free_bytes is None else f" of {gigabytes(free_bytes)}"
    takes = f"{task} takes {gigabytes(peak)}{of_free}"
    if tiling.num_tiles > 1:
        rows, columns = (side * stride for side in tiling.tile)
        tiles = f"{tiling.num_tiles} tiles of {columns}x{rows}"
        return f"chunk {chunk}, {tiles}: {takes}; whole frames would take {gigabytes(costs.first)}"
    if free_bytes is None:
        return f"chunk {chunk}: {takes}"
    is_enough = costs.peak(tiling, chunk + 1) <= free_bytes
    return f"chunk {chunk}: {takes}; more would not {'be faster' if is_enough else 'fit'}"


def disk_line(vae: WanVAE, tiling: Tiling, num_frames: int | None, direction: Direction) -> str:
    """What tiles leave on the disk until they are blended. Raises: ValueError where that does not fit."""
    if tiling.num_tiles == 1:
        return ""
    config = vae.config
    of_pixels = 0 if direction == "encode" else 2 * 3 * config.spatial_stride**2
    of_latents = 0 if direction == "decode" else vae.dtype.itemsize * config.z_dim / config.temporal_stride
    needed, folder = int((num_frames or 1) * tiling.area * (of_pixels + of_latents)), roomy_folder()
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise ValueError(
            f"[disk] {folder} must have {gigabytes(needed)} free for what tiles leave there, got {gigabytes(free)};"
            " let TMPDIR name a larger place"
        )
    return f"; {gigabytes(needed)} of disk{'' if num_frames else ' a frame'} in {folder}"


def parse_tile(text: str) -> TileChoice:
    """`auto`, `none`, or `640x480` to (640, 480)."""
    if text == "auto":
        return "auto"
    if text == "none":
        return "none"
    width, _, height = text.lower().partition("x")
    if not (width.isdecimal() and height.isdecimal()):
        raise ValueError(f"[tile] must be auto, none or WIDTHxHEIGHT in pixels, got {text!r}")
    return int(width), int(height)


def check_tile(tile: TileChoice, overlap: int | None, stride: int) -> None:
    """Raises: ValueError for an overlap or a tile (width, height) in pixels that is nothing to cut frames into."""
    if overlap is not None and (overlap < stride or overlap % stride):
        above = max(stride, workable_side_above(overlap, stride))
        raise ValueError(f"[overlap] must be a multiple of {stride} pixels, got {overlap}; {above} would do")
    if not isinstance(tile, tuple):
        return
    width, height = tile
    least = 2 * (DEFAULT_OVERLAP * stride if overlap is None else overlap)
    near = "x".join(str(max(least, workable_side_above(side, stride))) for side in tile)
    if width % stride or height % stride:
        raise ValueError(f"[tile] sides must be multiples of {stride} pixels, got {width}x{height}; {near} would do")
    if min(tile) < least:
        raise ValueError(
            f"[tile] sides must be at least {least} pixels, twice the overlap, got {width}x{height}; {near} would do"
        )


def candidates(frame: tuple[int, int], overlap: int) -> list[Tiling]:
    """Every even tiling of a frame whose tiles are no smaller than two overlaps, that of the least work first."""
    rows, columns = (range(1, max(2, side // overlap)) for side in frame)
    tilings = (evenly(frame, counts, overlap) for counts in product(rows, columns))
    return sorted(tilings, key=lambda each: (each.area, each.num_tiles))


def least_bytes(config: VAEConfig, height: int, width: int, dtype: torch.dtype, direction: Direction) -> int:
    """Memory without which not even the smallest tiles can be worked on."""
    stride = config.spatial_stride
    costs = costs_of(config, height, width, dtype, direction)
    return min(costs.peak(each, 1) for each in candidates((height // stride, width // stride), DEFAULT_OVERLAP))


def costs_of(config: VAEConfig, height: int, width: int, dtype: torch.dtype, direction: Direction) -> Costs:
    one, two = (peak_bytes(config, height, width, chunk, dtype, direction) for chunk in (1, 2))
    frames = 1 if direction == "encode" else config.temporal_stride
    return Costs(one, two - one, NUM_FRAME_COPIES * frames * 3 * height * width * 4)


@cache
def peak_bytes(
    config: VAEConfig, height: int, width: int, chunk: int, dtype: torch.dtype, direction: Direction = "roundtrip"
) -> int:
    """Bytes at the peak of a stream of whole frames, traced and multiplied by `MARGIN`; weights not counted."""
    if direction == "roundtrip":
        return max(peak_bytes(config, height, width, chunk, dtype, each) for each in ("encode", "decode"))
    vae = on_meta(lambda: WanVAE(config)).to(dtype)
    stride, space = config.temporal_stride, config.spatial_stride
    num_latents = 3 * chunk

    def zeros(channels: int, count: int, rows: int, columns: int) -> Iterator[Tensor]:
        for _ in range(count):
            yield torch.empty(1, channels, 1, rows, columns, device="meta")

    def run() -> None:
        if direction == "encode":
            stream = vae.encode_stream(zeros(3, 1 + stride * (num_latents - 1), height, width), chunk)
        else:
            stream = vae.decode_stream(zeros(config.z_dim, num_latents, height // space, width // space), chunk)
        for _ in stream:
            pass

    return int(MARGIN * trace(run).peak_bytes)
