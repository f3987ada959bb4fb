"""Videos from disk, one frame at a time: upright, RGB, 8 bits a channel, in the order in which they are shown.

What PyAV (FFmpeg) decodes can be read, GIF and PNG through Pillow. The rotation and mirroring that a camera writes
beside its frames (the display matrix) is carried out. More than 8 bits are rounded to 8 by FFmpeg's converter, without
tone mapping; the colours of HDR video come out flat. Frames come as they are, also where their distances vary: a file
then plays as long as before at its average rate, and `VideoInfo.fps` is that rate.

Letters: Y pixel rows, X pixel columns, C colour channels (RGB).
"""

from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor

IMAGE_SUFFIXES = (".gif", ".png")
# Where a file does not say, such as one of a single frame.
DEFAULT_FPS = Fraction(25)


@dataclass(frozen=True)
class VideoInfo:
    """Size as shown (upright), average frames per second, and the number of frames that the file claims, if it does."""

    width: int
    height: int
    fps: Fraction
    num_frames: int | None


def probe(path: Path) -> VideoInfo:
    """What is known before reading; decodes one frame. Raises: as `read_frames`."""
    height, width, _ = next(read_arrays(path)).shape
    if path.suffix.lower() in IMAGE_SUFFIXES:
        return VideoInfo(width, height, *_probe_image(path))
    with _av().open(str(path)) as container:
        stream = container.streams.video[0]
        fps, num_frames = stream.average_rate or stream.guessed_rate or DEFAULT_FPS, stream.frames or None
    # Timestamps of an mp4 count in 1 / 65535 of a second at the finest.
    return VideoInfo(width, height, Fraction(fps).limit_denominator(65535), num_frames)


def read_frames(path: Path) -> Iterator[Tensor]:
    """The frames of a video or an image, [1, 3, 1, Y, X], float32 in [-1, 1], as `WanVAE.encode_stream` takes them.

    Raises: FileNotFoundError; ValueError where there is no picture in the file or one does not decode; RuntimeError
        without PyAV.
    """
    for frame_YXC in read_arrays(path):
        yield torch.from_numpy(frame_YXC).permute(2, 0, 1)[None, :, None].float() / 127.5 - 1


def read_arrays(path: Path) -> Iterator[np.ndarray]:
    """As `read_frames`, each frame [Y, X, 3], uint8."""
    if not path.is_file():
        raise FileNotFoundError(f"[video] file must exist, got {path}")
    decode = _decode_image if path.suffix.lower() in IMAGE_SUFFIXES else _decode_video
    num_frames = 0
    for frame_YXC in decode(path):
        num_frames += 1
        yield frame_YXC
    if num_frames == 0:
        raise ValueError(f"[video] file must hold at least 1 frame, got 0 from {path}")


def _decode_video(path: Path) -> Iterator[np.ndarray]:
    av = _av()
    num_frames = 0
    try:
        with av.open(str(path)) as container:
            if not container.streams.video:
                held = ", ".join(sorted({stream.type for stream in container.streams})) or "nothing"
                raise ValueError(f"[video] file must hold a video, got {path} with {held} in it")
            container.streams.video[0].thread_type = "AUTO"
            for frame in container.decode(video=0):
                if frame.is_corrupt:
                    raise ValueError(f"[video] frames must be whole, got number {num_frames} of {path} damaged")
                yield upright(frame.to_ndarray(format="rgb24"), display_matrix(frame), path)
                num_frames += 1
    except av.error.FFmpegError as error:
        where = f" after {num_frames} frames" if num_frames else ""
        raise ValueError(f"[video] file must be a video that decodes, got {path}: {error.strerror}{where}") from error


def display_matrix(frame: Any) -> tuple[int, int, int, int]:
    """(a, b, c, d) of x' = a x + c y, y' = b x + d y, in units of 1 / 65536; the identity where a file has none."""
    data = frame.side_data.get("DISPLAYMATRIX")
    if data is None:
        return 65536, 0, 0, 65536
    a, b, _, c, d, *_ = np.frombuffer(bytes(data), np.int32).tolist()
    return a, b, c, d


def upright(frame_YXC: np.ndarray, matrix: tuple[int, int, int, int], path: Path) -> np.ndarray:
    """The frame as the display matrix says it is to be shown: turned by quarters, mirrored.

    Raises: ValueError for any other angle.
    """
    a, b, c, d = matrix
    if b == c == 0:
        turned, flips_x, flips_y = frame_YXC, a < 0, d < 0
    elif a == d == 0:
        turned, flips_x, flips_y = frame_YXC.transpose(1, 0, 2), c < 0, b < 0
    else:
        raise ValueError(f"[video] must be turned by quarters if at all, got {path} with display matrix {matrix}")
    return np.ascontiguousarray(turned[:: -1 if flips_y else 1, :: -1 if flips_x else 1])


def _av() -> ModuleType:
    try:
        import av
    except ImportError as error:
        raise RuntimeError(f"[video] reading needs PyAV, got {error}; pip install av") from error
    return av


def _decode_image(path: Path) -> Iterator[np.ndarray]:
    from PIL import Image, ImageSequence

    try:
        with Image.open(path) as image:
            for frame in ImageSequence.Iterator(image):
                yield np.asarray(frame.convert("RGB"))
    except (Image.UnidentifiedImageError, SyntaxError, EOFError) as error:
        raise ValueError(f"[video] file must be a whole image, got {path}: {error}") from error


def _probe_image(path: Path) -> tuple[Fraction, int]:
    from PIL import Image

    with Image.open(path) as image:
        milliseconds = image.info.get("duration", 0)
        fps = Fraction(1000, round(milliseconds)) if milliseconds >= 1 else DEFAULT_FPS
        return fps, getattr(image, "n_frames", 1)
