"""Small videos drawn for tests: text and shapes that move, in colours that the tiny model knows."""

from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import numpy as np

BLUE, RED, YELLOW, WHITE = (36, 72, 232), (228, 36, 36), (248, 224, 40), (248, 248, 248)


def drawn(num_frames: int, size: tuple[int, int] = (96, 64)) -> Iterator[np.ndarray]:
    """A circle goes right, a square goes left, a text counts; [Y, X, 3], uint8."""
    from PIL import Image, ImageDraw

    width, height = size
    for i in range(num_frames):
        image = Image.new("RGB", size, BLUE)
        draw = ImageDraw.Draw(image)
        x = 3 * i % (width - 20)
        draw.ellipse((x, 4, x + 24, 28), fill=RED)
        draw.rectangle((width - x - 30, 32, width - x - 10, 52), fill=YELLOW)
        draw.text((i % 20, height - 12), f"frame {i}", fill=WHITE)
        yield np.asarray(image)


def write_clip(
    path: Path,
    num_frames: int = 9,
    *,
    size: tuple[int, int] = (96, 64),
    rate: int | Fraction = 24,
    pixels: str = "yuv420p",
    degrees: int | None = None,
    has_uneven_times: bool = False,
) -> Path:
    """An H.264 file of `drawn`; `degrees` is what its display matrix says, counter-clockwise."""
    import av

    with av.open(str(path), mode="w") as container:
        stream = container.add_stream("libx264", rate=rate, options={"crf": "10", "preset": "ultrafast"})
        stream.width, stream.height, stream.pix_fmt = *size, pixels
        if degrees is not None:
            stream.set_display_rotation(degrees)
        for i, picture in enumerate(drawn(num_frames, size)):
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            if has_uneven_times:
                frame.pts, frame.time_base = i * i, Fraction(1, 24)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def write_sound(path: Path) -> Path:
    """A file with silence and no picture."""
    import av

    with av.open(str(path), mode="w") as container:
        stream = container.add_stream("aac", rate=44100)
        for _ in range(10):
            frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
            frame.sample_rate = 44100
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path
