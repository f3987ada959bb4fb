"""Frames too large for memory: the VAE works on one window of them after the other, and what it makes is blended.

What fills memory at a large size is the state, the last frames of every layer, kept from chunk to chunk. So the tile is
the outer loop: one tile's whole video runs through the network, then the next one's, and only one tile has a state. The
price is disk: what every tile makes waits there, in a file without a name, until all of them can be read back side by
side. Memory holds one tile's stream or one chunk of whole frames, for a video of any length.

What is gained: peak of a process in MB above what it held before, the tiny VAE, float32, 17 frames of 1280x720, one
latent at a time, 2 CPU threads, as `heap.return_large_blocks` has it and, in brackets, glibc by itself:

    tiles               planned    decode         planned    encode
    whole frames           2147      1792 (1966)     1551      1284 (1439)
    4 of 672x392            614       535  (702)      443       402  (560)
    12 of 368x288           247       246  (425)      178       180  (392)

Tiles lie on whole latents and overlap; weights rise and fall linearly inside overlaps and sum to 1 everywhere. Frames
wait as 16-bit floats (float16 rounds pixels in [-1, 1] by 2^-12, 1 / 32 of an 8-bit step; bfloat16 stays as it is) and
latents in their own type.

What is lost: a tile sees zeros where its neighbours are, and the attention of the middle block, which otherwise sees
whole frames, sees the tile alone, so tiles are never exact. The outer quarters of an overlap weigh nothing, for what
lies at an edge is worst; with ramps over all of it the tiny VAE came to 54.0 dB where this comes to 61.6. Against the
same latents, or frames, in one piece, float32; worst are the frame of least PSNR and the pixel furthest off, of 255:

    overlap, pixels                              8     16     24     32     48     64     96
    tiny, 384x384 in 9 tiles of 192x192, 9 frames of the suite's clip side by side
    decode, PSNR, dB                          41.2   48.1   54.2   57.1   60.4   61.6   61.8
    decode, worst frame, dB                   38.1   45.7   50.4   52.4   55.4   57.0   57.2
    decode, worst pixel                         97     49     35     29     23     19     18
    encode, signal to noise, dB               23.2   30.9   34.3   38.4   50.9   55.4   59.2
    width 96, random weights, 192x192 in 4 tiles of 128x128, 5 frames
    decode, PSNR, dB                                 31.6          35.8   38.8   40.0
    encode, signal to noise, dB                      31.3          34.7   37.2   37.7

A roundtrip of the tiny VAE lost nothing measurable to tiles: 22.2 dB with any of these, as without. From 64 pixels on
what is left is the attention's, spread over the frame and not at the seams.

Letters: B batch, C channels, T frames, Y rows, X columns, Z latent channels, S pixels to a latent along one side.
"""

import math
import os
import tempfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from wan_model.vae import WanVAE

Window = tuple[slice, slice]
Source = Callable[[], Iterable[Tensor]]

# Latents. More gains little in the table above.
DEFAULT_OVERLAP = 8


@dataclass(frozen=True)
class Tiling:
    """Tiles of one size that cover a frame, everything in latents: (rows, columns).

    The last tile of a row or column ends where the frame does, and those between are spread evenly, so neighbours
    overlap by `overlap` or more.
    """

    frame: tuple[int, int]
    tile: tuple[int, int]
    overlap: int = DEFAULT_OVERLAP

    @property
    def starts(self) -> tuple[list[int], list[int]]:
        """First rows, and first columns, of the tiles."""
        rows, columns = (spread(length, tile, self.overlap) for length, tile in zip(self.frame, self.tile, strict=True))
        return rows, columns

    @property
    def num_tiles(self) -> int:
        rows, columns = self.starts
        return len(rows) * len(columns)

    @property
    def area(self) -> int:
        """Latents of all tiles together, those in overlaps counted as often as they are worked on."""
        return self.num_tiles * math.prod(self.tile)

    @property
    def share(self) -> float:
        """Of a frame that one tile covers."""
        return math.prod(self.tile) / math.prod(self.frame)

    def windows(self, scale: int = 1) -> list[Window]:
        """Where each tile lies in a frame whose sides are `scale` times those in latents."""
        height, width = (side * scale for side in self.tile)
        rows, columns = self.starts
        return [
            (slice(y * scale, y * scale + height), slice(x * scale, x * scale + width)) for y in rows for x in columns
        ]

    def weights(self, scale: int = 1) -> list[Tensor]:
        """[scale * rows, scale * columns] of each tile, float32: all that cover a pixel sum to 1 there."""
        along_y, along_x = (
            ramps(length, tile, self.overlap, scale) for length, tile in zip(self.frame, self.tile, strict=True)
        )
        return [y[:, None] * x for y in along_y for x in along_x]


def whole(height: int, width: int) -> Tiling:
    """One tile, the frame itself."""
    return Tiling((height, width), (height, width))


def evenly(frame: tuple[int, int], counts: tuple[int, int], overlap: int) -> Tiling:
    """The smallest tiles of which `counts` (rows, columns) cover the frame with this overlap."""
    rows, columns = (
        math.ceil((length + (count - 1) * overlap) / count) for length, count in zip(frame, counts, strict=True)
    )
    return Tiling(frame, (rows, columns), overlap)


def at_most(tile: tuple[int, int], frame: tuple[int, int], overlap: int) -> Tiling:
    """As few tiles as tiles of this size take, made as small as so many can be."""
    rows, columns = (len(spread(length, side, overlap)) for length, side in zip(frame, tile, strict=True))
    return evenly(frame, (rows, columns), overlap)


def spread(length: int, tile: int, overlap: int) -> list[int]:
    """Where tiles begin along one side."""
    if tile >= length:
        return [0]
    last = math.ceil((length - tile) / (tile - overlap))
    return [round(i * (length - tile) / last) for i in range(last + 1)]


def ramps(length: int, tile: int, overlap: int, scale: int) -> list[Tensor]:
    """The weights of each tile along one side, [scale * tile].

    0 over the first quarter of the overlap, where the tile's edge does harm, up over its middle half, 1 from there on;
    the same down at the end. 1 all the way where the tile ends with the frame.
    """
    up = (2 * (torch.arange(tile * scale) + 0.5) / max(1, overlap * scale) - 0.5).clamp(0, 1)
    level = torch.ones(tile * scale)
    starts = spread(length, tile, overlap)
    found = [(up if start else level).minimum(level if start + tile >= length else up.flip(0)) for start in starts]
    total = torch.zeros(length * scale)
    for start, ramp in zip(starts, found, strict=True):
        total[start * scale : (start + tile) * scale] += ramp
    return [ramp / total[start * scale : (start + tile) * scale] for start, ramp in zip(starts, found, strict=True)]


class Spool:
    """Tensors on disk, read back as often as asked for. The file has no name: whatever ends the process, it is gone."""

    def __init__(self, folder: Path | None = None):
        self.file: Any = tempfile.TemporaryFile(dir=folder or roomy_folder())  # noqa: SIM115, closed by __exit__
        self.kept: list[tuple[int, torch.dtype, torch.Size]] = []

    def __enter__(self) -> "Spool":
        return self

    def __exit__(self, *args: object) -> None:
        self.file.close()

    def __len__(self) -> int:
        return len(self.kept)

    def append(self, piece: Tensor) -> None:
        piece = piece.cpu().contiguous()
        self.kept.append((self.file.seek(0, os.SEEK_END), piece.dtype, piece.shape))
        # As bytes, because NumPy knows no bfloat16.
        self.file.write(piece.view(torch.uint8).numpy().data)

    def __getitem__(self, index: int) -> Tensor:
        offset, dtype, shape = self.kept[index]
        piece = torch.empty(shape, dtype=dtype)
        self.file.seek(offset)
        if self.file.readinto(piece.view(torch.uint8).numpy().data) != piece.nbytes:
            raise OSError(f"[disk] {piece.nbytes} bytes must come back from byte {offset}, got fewer")
        return piece

    def __iter__(self) -> Iterator[Tensor]:
        return (self[index] for index in range(len(self)))


def roomy_folder() -> Path:
    """Where gigabytes may wait: $TMPDIR, else /var/tmp, since /tmp is memory on many systems."""
    roomy = Path("/var/tmp")
    if "TMPDIR" in os.environ or not os.access(roomy, os.W_OK | os.X_OK):
        return Path(tempfile.gettempdir())
    return roomy


def decode_tiles(
    vae: WanVAE, latents: Source, tiling: Tiling, chunk: int = 1, *, folder: Path | None = None
) -> Iterator[Tensor]:
    """As `vae.decode_stream`, tile by tile: for frames whose state does not fit into memory.

    Args:
        latents: called once for each tile, returns the same pieces [B, Z, t, Y, X] from the first on.
        tiling: of frames of Y x X latents.
        chunk: as in `decode_stream`.
        folder: where frames wait, by default `roomy_folder()`: 6 bytes for each of `tiling.area` S S pixels of a frame.

    Yields:
        as `decode_stream`, on the CPU: the same bits where one tile covers the frame, else near them, since a tile sees
        zeros, and the attention of the middle block nothing, where its neighbours are.

    Raises:
        ValueError: as `decode_stream`, or pieces that are not of the tiling's frame. OSError: the disk is full.
    """
    yield from run_tiles(vae, vae.decode_stream, latents, tiling, chunk, (1, vae.config.spatial_stride), folder)


def encode_tiles(
    vae: WanVAE, frames: Source, tiling: Tiling, chunk: int = 1, *, folder: Path | None = None
) -> Iterator[Tensor]:
    """As `vae.encode_stream`, tile by tile; arguments and what it yields and raises as in `decode_tiles`.

    frames: called once for each tile, returns the same pieces [B, 3, t, S Y, S X] from the first on.
    """
    yield from run_tiles(vae, vae.encode_stream, frames, tiling, chunk, (vae.config.spatial_stride, 1), folder)


def run_tiles(
    vae: WanVAE,
    stream: Callable[[Iterable[Tensor], int], Iterator[Tensor]],
    source: Source,
    tiling: Tiling,
    chunk: int,
    scales: tuple[int, int],
    folder: Path | None,
) -> Iterator[Tensor]:
    """scales: how many times the tiling's sides those of what goes in, and of what comes out, are."""
    going, coming = scales
    if tiling.num_tiles == 1:
        yield from stream(checked(source(), tiling, going), chunk)
        return
    with Spool(folder) as spool:
        for rows, columns in tiling.windows(going):
            cut = (piece[..., rows, columns] for piece in checked(source(), tiling, going))
            for part in stream(cut, chunk):
                spool.append(part.half() if coming > 1 and part.dtype == torch.float32 else part)
        yield from blended(spool, tiling, coming, vae.dtype)


def checked(pieces: Iterable[Tensor], tiling: Tiling, scale: int) -> Iterator[Tensor]:
    """The same pieces. Raises: ValueError for one that is not of the tiling's frame."""
    height, width = (side * scale for side in tiling.frame)
    for piece in pieces:
        if piece.shape[-2:] != (height, width):
            got = "x".join(str(side) for side in piece.shape[-2:])
            raise ValueError(f"[vae] pieces must have {height}x{width} rows and columns, as the tiling has, got {got}")
        yield piece


def blended(spool: Spool, tiling: Tiling, scale: int, dtype: torch.dtype) -> Iterator[Tensor]:
    """The pieces of whole frames from those of all tiles, which lie in the spool one tile after the other."""
    height, width = (side * scale for side in tiling.frame)
    windows, weights = tiling.windows(scale), tiling.weights(scale)
    num_pieces = len(spool) // len(windows)
    for index in range(num_pieces):
        frames = torch.zeros(*spool.kept[index][2][:3], height, width)
        for tile, ((rows, columns), weight_YX) in enumerate(zip(windows, weights, strict=True)):
            frames[..., rows, columns] += spool[tile * num_pieces + index].float().mul_(weight_YX)
        yield frames.to(dtype)
