"""A video file as the VAE can take it: sides and number of frames checked, or cut to fit where the user says so."""

import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path

from torch import Tensor

from wan_model.config import VAEConfig
from wan_model.vae_stream import check_num_frames, check_sides, workable_frames, workable_side
from wan_model.video_reader import probe, read_frames


@dataclass(frozen=True)
class Source:
    """A video to encode: its size once cut, its rate, and how many frames it should have (None: nobody knows)."""

    path: Path
    width: int
    height: int
    fps: Fraction
    num_frames: int | None
    config: VAEConfig
    is_cropped: bool
    said: list[str] = field(default_factory=list)

    def frames(self) -> Iterator[Tensor]:
        """[1, 3, 1, Y, X] in [-1, 1], read anew from the first one on."""
        if not self.is_cropped:
            return read_frames(self.path)
        cut = (centre(frame, self.height, self.width) for frame in read_frames(self.path))
        return whole_latents(cut, self.config.temporal_stride, self.say)

    def say(self, remark: str) -> None:
        """On stderr, and once, however often the file is read."""
        if remark not in self.said:
            self.said.append(remark)
            print(f"note: {remark}", file=sys.stderr)


def open_source(path: Path, config: VAEConfig, *, is_cropped: bool) -> Source:
    """Says on stderr what is cut off. Raises: ValueError for what does not fit and must not be cut."""
    info = probe(path)
    stride, space = config.temporal_stride, config.spatial_stride
    width, height = workable_side(info.width, space), workable_side(info.height, space)
    num_frames = info.num_frames and workable_frames(info.num_frames, stride)
    if not is_cropped:
        with_advice(f"--crop cuts to {width}x{height}", check_sides, info.height, info.width, space)
        if info.num_frames:
            advice = f"--crop drops the last {info.num_frames - workable_frames(info.num_frames, stride)}"
            with_advice(advice, check_num_frames, info.num_frames, stride)
    if not (width and height):
        raise ValueError(f"[vae] sides must be at least {space} pixels, got {info.width}x{info.height}")
    source = Source(path, width, height, info.fps, num_frames, config, is_cropped)
    if (width, height) != (info.width, info.height):
        source.say(f"cut {info.width}x{info.height} to {width}x{height}, around the centre")
    return source


def with_advice(advice: str, check: Callable[..., None], *numbers: int) -> None:
    """`check(*numbers)`, what it raises with `advice` behind it."""
    try:
        check(*numbers)
    except ValueError as error:
        raise ValueError(f"{error}; {advice}") from None


def centre(frame: Tensor, height: int, width: int) -> Tensor:
    top, left = (frame.shape[-2] - height) // 2, (frame.shape[-1] - width) // 2
    return frame[..., top : top + height, left : left + width]


def whole_latents(frames: Iterator[Tensor], stride: int, say: Callable[[str], None]) -> Iterator[Tensor]:
    """The same frames without the last ones that fill no latent; says how many those are."""
    held: list[Tensor] = []
    for index, frame in enumerate(frames):
        held.append(frame)
        if index % stride == 0:
            yield from held
            held.clear()
    if held:
        say(f"dropped the last {len(held)} frames, for {stride}n + 1")
