"""Videos on disk: write, read back, contact sheet, settings. A file appears complete, under its name, or not at all.

What writes a video takes its frames one at a time, so one of any length can be written; reading is in `video_reader`.
Letters: F frames, Y pixel rows, X pixel columns, C colour channels (RGB).
"""

import json
import math
import os
import shutil
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    import torch

VIDEO_SUFFIXES = (".mp4", ".gif")
IMAGE_SUFFIXES = (".png",)
MAX_SHEET_FRAMES, MAX_SHEET_SIDE = 36, 416


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """A temporary path beside `path`, renamed to it when the block ends well and removed when it does not.

    The suffix is kept, since encoders choose the container by it. (`tensor_files.write_all` is its twin for weights.)
    """
    temporary = path.with_name(f".{path.stem}.{os.getpid()}.part{path.suffix}")
    try:
        yield temporary
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def atomic_directory(path: Path) -> Iterator[Path]:
    """As `atomic_path`, for a directory that does not exist yet; the temporary one is created for the block."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    temporary.mkdir()
    try:
        yield temporary
        os.replace(temporary, path)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def check_output(path: Path, num_frames: int) -> None:
    """Fails early, before any work, where `path` cannot be written or cannot hold `num_frames` frames.

    Raises: ValueError for an unknown suffix or several frames in a PNG; FileNotFoundError, NotADirectoryError or
    PermissionError for the directory.
    """
    suffixes = VIDEO_SUFFIXES + IMAGE_SUFFIXES
    if path.suffix.lower() not in suffixes:
        raise ValueError(f"[output] name must end in {', '.join(suffixes)}, got {path.name!r}")
    if path.suffix.lower() in IMAGE_SUFFIXES and num_frames > 1:
        raise ValueError(f"[output] {path.suffix} holds 1 frame, got {num_frames}; name it .mp4, or pass --frames 1")
    check_directory(path.parent)
    if path.is_dir():
        raise IsADirectoryError(f"[output] must be a file, got the directory {path}")


def check_directory(directory: Path) -> None:
    """Fails where a file cannot be created in `directory`. Raises: an OSError that says what to do."""
    if not directory.exists():
        raise FileNotFoundError(f"[output] directory must exist, got {directory}; create it first")
    if not directory.is_dir():
        raise NotADirectoryError(f"[output] parent must be a directory, got the file {directory}")
    if not os.access(directory, os.W_OK | os.X_OK):
        raise PermissionError(f"[output] directory must be writable, got {directory}; choose another with -o")


def to_frames(video_CFYX: "torch.Tensor") -> "np.ndarray":
    """round((video + 1) * 127.5), clamped to 0..255.

    video_CFYX: [3, F, Y, X], float, in [-1, 1]. Result: [F, Y, X, 3], uint8. Rounds to nearest, where the official
    code truncates: truncation darkens by half a level.
    """
    import torch

    levels = video_CFYX.detach().to(device="cpu", dtype=torch.float32).clamp(-1, 1).add(1).mul(127.5).round()
    return levels.to(torch.uint8).permute(1, 2, 3, 0).contiguous().numpy()


def frames_of(parts: Iterable["torch.Tensor"]) -> Iterator["np.ndarray"]:
    """The frames of one video that comes as parts [1, 3, F, Y, X], each as `to_frames` makes it: [Y, X, 3], uint8."""
    for part in parts:
        yield from to_frames(part[0])


def playable(path: Path) -> tuple[Path, str]:
    """The path that this machine can write, and a remark, empty when it is the one asked for.

    Without an H.264 encoder an mp4 becomes a GIF (256 colours) of the same name, and the remark says so.
    """
    reason = missing_encoder() if path.suffix.lower() == ".mp4" else None
    if reason is None:
        return path, ""
    return path.with_suffix(".gif"), f"no mp4: {reason}; wrote a GIF instead (256 colours)"


def write_video(path: Path, frames: "Iterable[np.ndarray]", fps: int | Fraction) -> tuple[Path, str]:
    """Writes mp4 (H.264, yuv420p), GIF or PNG, as the suffix says, or the fallback of `playable`.

    frames: [Y, X, 3], uint8, as they come: an mp4 holds none of them, a GIF all (Pillow sets its palettes at the end).
    Returns the path written and the remark of `playable`.
    Raises: ValueError for no frame, one unlike the first, or several for a PNG.
    """
    path, remark = playable(path)
    with atomic_path(path) as temporary:
        encode(temporary, frames, fps)
    return path, remark


def encode(path: Path, frames: "Iterable[np.ndarray]", fps: int | Fraction) -> None:
    """Writes straight to `path`; use inside `atomic_path`."""
    write = {".mp4": _write_mp4, ".gif": _write_gif, ".png": _write_png}[path.suffix.lower()]
    write(path, _alike(frames), fps)


def _alike(frames: "Iterable[np.ndarray]") -> "Iterator[np.ndarray]":
    """The same frames, at least one, all of one size."""
    shape = None
    for index, frame_YXC in enumerate(frames):
        shape = shape or frame_YXC.shape
        if frame_YXC.shape != shape:
            raise ValueError(f"[video] frames must all be {shape}, got {frame_YXC.shape} as number {index}")
        yield frame_YXC
    if shape is None:
        raise ValueError("[video] must have at least 1 frame, got none")


def missing_encoder() -> str | None:
    """Why no mp4 can be written on this machine; None when one can."""
    try:
        import av
    except ImportError as error:
        return f"PyAV cannot be imported ({error}); pip install av"
    return None if "libx264" in av.codecs_available else "this build of PyAV lacks libx264"


def _write_mp4(path: Path, frames: "Iterator[np.ndarray]", fps: int | Fraction) -> None:
    import av

    # The first frame is made before there is a file, so that what goes wrong until then is told as it was.
    first_YXC = next(frames)
    with av.open(str(path), mode="w", options={"movflags": "faststart"}) as container:
        stream = container.add_stream("libx264", rate=fps, options={"crf": "14", "preset": "medium"})
        stream.height, stream.width = (side + side % 2 for side in first_YXC.shape[:2])
        stream.pix_fmt = "yuv420p"
        for frame_YXC in chain([first_YXC], frames):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(_pad_to_even(frame_YXC), format="rgb24")))
        container.mux(stream.encode())


def _pad_to_even(frame_YXC: "np.ndarray") -> "np.ndarray":
    """yuv420p halves the colour planes, so both sides must be even; edge pixels are repeated where they are not."""
    import numpy as np

    height, width = frame_YXC.shape[:2]
    return np.pad(frame_YXC, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")


def _write_gif(path: Path, frames: "Iterator[np.ndarray]", fps: int | Fraction) -> None:
    images = (_pillow().fromarray(frame_YXC) for frame_YXC in frames)
    next(images).save(path, save_all=True, append_images=images, duration=round(1000 / fps), loop=0)


def _write_png(path: Path, frames: "Iterator[np.ndarray]", fps: int | Fraction) -> None:
    image = _pillow().fromarray(next(frames))
    if next(frames, None) is not None:
        raise ValueError(f"[video] {path.suffix} holds 1 frame, got more; name it .mp4 or .gif")
    image.save(path)


def _pillow() -> Any:
    try:
        from PIL import Image
    except ImportError as error:
        raise RuntimeError(f"[output] images need Pillow, got {error}; pip install pillow") from error
    return Image


def contact_sheet(frames_FYXC: "np.ndarray", num_columns: int = 6, gap: int = 4) -> "np.ndarray":
    """All frames on one picture, row by row, on white. Result: [rows, columns, 3], uint8."""
    import numpy as np

    num_frames, height, width, _ = frames_FYXC.shape
    num_columns = min(num_columns, num_frames)
    num_rows = math.ceil(num_frames / num_columns)
    sheet = np.full((num_rows * (height + gap) + gap, num_columns * (width + gap) + gap, 3), 255, dtype=np.uint8)
    for index, frame_YXC in enumerate(frames_FYXC):
        top = gap + index // num_columns * (height + gap)
        left = gap + index % num_columns * (width + gap)
        sheet[top : top + height, left : left + width] = frame_YXC
    return sheet


class Sheet:
    """Small copies of a video's frames, as they pass: of all up to 36, of every second one up to 72, and so on."""

    def __init__(self) -> None:
        self.kept: list[np.ndarray] = []
        self.step = 1

    def watch(self, frames: "Iterable[np.ndarray]") -> "Iterator[np.ndarray]":
        for index, frame_YXC in enumerate(frames):
            if index % self.step == 0:
                self.kept.append(small(frame_YXC))
            if len(self.kept) > MAX_SHEET_FRAMES:
                self.kept = self.kept[::2]
                self.step *= 2
            yield frame_YXC

    def frames(self) -> "np.ndarray":
        import numpy as np

        return np.stack(self.kept)


def small(frame_YXC: "np.ndarray") -> "np.ndarray":
    """A copy with sides divided by the least whole number that takes the longer one to `MAX_SHEET_SIDE` or below."""
    factor = math.ceil(max(frame_YXC.shape[:2]) / MAX_SHEET_SIDE)
    if factor == 1:
        return frame_YXC
    height, width = (side // factor for side in frame_YXC.shape[:2])
    squares = frame_YXC[: height * factor, : width * factor].reshape(height, factor, width, factor, 3)
    means: np.ndarray = squares.mean(axis=(1, 3)).round().astype(frame_YXC.dtype)
    return means


def write_image(path: Path, image_YXC: "np.ndarray") -> Path:
    """Writes one [Y, X, 3] uint8 image as PNG."""
    with atomic_path(path) as temporary:
        encode(temporary, image_YXC[None], fps=1)
    return path


def dump_json(path: Path, data: Mapping[str, Any]) -> None:
    """Writes `data` as indented JSON, text kept readable (no \\u escapes)."""
    path.write_text(json.dumps(data, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


@dataclass(frozen=True)
class Saved:
    """What one video left on disk; `remark` is empty when it was written as asked."""

    video: Path
    sheet: Path
    record: Path
    remark: str


def save(path: Path, frames: "Iterable[np.ndarray]", fps: int, record: Mapping[str, Any]) -> Saved:
    """Writes the video, its contact sheet and its settings: `a.mp4`, `a.sheet.png`, `a.json`. All three or none.

    frames: as for `write_video`, which says how many of them are held.
    """
    video, remark = playable(path)
    saved = Saved(video, path.with_suffix(".sheet.png"), path.with_suffix(".json"), remark)
    sheet = Sheet()
    with (
        atomic_path(saved.record) as record_part,
        atomic_path(saved.sheet) as sheet_part,
        atomic_path(saved.video) as video_part,
    ):
        encode(video_part, sheet.watch(frames), fps)
        encode(sheet_part, contact_sheet(sheet.frames())[None], fps=1)
        dump_json(record_part, {**record, "video": saved.video.name})
    return saved


def read_video(path: Path) -> "np.ndarray":
    """A whole video or image as [F, Y, X, 3], uint8; errors as those of `video_reader.read_frames`."""
    import numpy as np

    from wan_model.video_reader import read_arrays

    return np.stack(list(read_arrays(path)))
