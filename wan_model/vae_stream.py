"""Streams of frames for the VAE: pieces of any length come in, groups of the lengths it works on go out.

Letters: B batch, C channels, T frames, Y rows, X columns.
"""

from collections.abc import Callable, Iterable, Iterator

import torch
from torch import Tensor


def regroup(pieces: Iterable[Tensor], *, channels: int, first: int, later: int) -> Iterator[Tensor]:
    """The same frames, [B, channels, T, Y, X], in groups of `first`, then of `later`; the last may be shorter.

    Each group is contiguous, so that what is computed from it does not depend on how the frames came. Holds less than
    one group and one piece at a time.
    Raises: ValueError for no piece at all, a piece that is no video, or one unlike the first.
    """
    held: list[Tensor] = []
    num_held, size = 0, first
    shape: tuple[int, ...] | None = None
    for piece in pieces:
        shape = check_piece(piece, channels, shape)
        held.append(piece)
        num_held += piece.shape[2]
        while num_held >= size:
            frames = joined(held)
            held, num_held = [frames[:, :, size:]], num_held - size
            yield frames[:, :, :size].contiguous()
            size = later
    if shape is None:
        raise ValueError("[vae] stream must hold at least 1 frame, got none")
    if num_held:
        yield joined(held).contiguous()


def joined(pieces: list[Tensor]) -> Tensor:
    """The pieces as one video; those without frames are left out."""
    filled = [piece for piece in pieces if piece.shape[2]]
    return filled[0] if len(filled) == 1 else torch.cat(filled, dim=2)


def watched_latents(
    source: Callable[[], Iterable[Tensor]], advance: Callable[[int], None], stride: int
) -> Callable[[], Iterator[Tensor]]:
    """The same source, each time from the first piece on; `advance` is told how many more frames are through.

    Those of a chunk that is being worked on may count already. stride: frames to a latent; the first latent is 1.
    """

    def pieces() -> Iterator[Tensor]:
        missing = stride - 1
        for piece in source():
            yield piece
            # Whoever asks for the next piece has taken this one.
            advance(stride * piece.shape[2] - missing)
            missing = 0

    return pieces


def check_piece(piece: Tensor, channels: int, expected: tuple[int, ...] | None) -> tuple[int, ...]:
    """What must stay the same along a stream: batch, channels, rows, columns."""
    if piece.ndim != 5 or piece.shape[1] != channels or 0 in piece.shape:
        raise ValueError(f"[vae] pieces must have shape [B, {channels}, T, Y, X], none of them 0, got {[*piece.shape]}")
    shape = tuple(piece.shape[:2] + piece.shape[3:])
    if expected is not None and shape != expected:
        raise ValueError(f"[vae] batch, channels, rows, columns must stay {expected} along a stream, got {shape}")
    return shape


def check_chunk(chunk: int) -> int:
    if chunk < 1:
        raise ValueError(f"[vae] chunk must be at least 1 latent frame, got {chunk}")
    return chunk


def check_num_frames(num_frames: int, stride: int) -> None:
    """Raises: ValueError, which names the neighbours that work, unless `num_frames` is stride * n + 1."""
    if num_frames % stride != 1 % stride:
        below, above = workable_frames(num_frames, stride), workable_frames(num_frames, stride) + stride
        raise ValueError(f"[vae] number of frames must be {stride}n + 1, got {num_frames}; {below} or {above} would do")


def workable_frames(num_frames: int, stride: int) -> int:
    """The largest stride * n + 1 that is not above `num_frames`."""
    return (num_frames - 1) // stride * stride + 1


def check_sides(height: int, width: int, stride: int) -> None:
    """Raises: ValueError, which names sizes nearby, unless both sides are multiples of `stride`."""
    if height % stride or width % stride:
        below, above = (f"{fit(width, stride)}x{fit(height, stride)}" for fit in (workable_side, workable_side_above))
        near = f"{below} or {above}" if min(height, width) >= stride else above
        raise ValueError(f"[vae] sides must be multiples of {stride} pixels, got {width}x{height}; {near} would do")


def workable_side(side: int, stride: int) -> int:
    """The largest multiple of `stride` that is not above `side`."""
    return side // stride * stride


def workable_side_above(side: int, stride: int) -> int:
    return workable_side(side + stride - 1, stride)
