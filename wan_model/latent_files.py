"""Latents of a video in a file: a safetensors file of one tensor, written and read a few frames at a time.

The tensor `latents` is [T, Z, Y, X], frames first, so that what comes is appended and what is wanted is one piece of
the file. Its metadata say which VAE made it and what the video was.

Letters: B batch, Z latent channels, T latent frames, Y, X latent rows and columns.
"""

import hashlib
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path

import torch
from torch import Tensor

from wan_model.config import VAEConfig
from wan_model.tensor_files import StoredTensor, list_safetensors
from wan_model.video_io import atomic_path

SUFFIX = ".safetensors"
TENSOR = "latents"
DTYPE_NAMES = {torch.float32: "F32", torch.bfloat16: "BF16", torch.float16: "F16"}

# Room for the header, which is known only at the end; the format allows spaces behind it.
HEADER_BYTES = 1024


@dataclass(frozen=True)
class LatentFile:
    """Where latents lie, [T, Z, Y, X], and what they are of: the VAE, frames per second, pixels, frames."""

    stored: StoredTensor
    vae: str
    fps: Fraction
    width: int
    height: int
    num_frames: int

    def pieces(self, num_latents: int = 1) -> Iterator[Tensor]:
        """[1, Z, t, Y, X] from the first to the last, t being `num_latents` but for the last."""
        total, *shape = self.stored.shape
        frame_bytes = self.stored.num_bytes // total
        for start in range(0, total, num_latents):
            part_shape = (min(num_latents, total - start), *shape)
            part = replace(self.stored, offset=self.stored.offset + start * frame_bytes, shape=part_shape)
            yield part.read().transpose(0, 1)[None]


def describe_vae(config: VAEConfig) -> str:
    """One line by which latents know their VAE: its shape, and a digest of the statistics that normalise them.

    Weights are not looked at; two trainings of one shape differ in their statistics.
    """
    statistics = json.dumps([config.latents_mean, config.latents_std]).encode()
    strides = f"{config.temporal_stride}x{config.spatial_stride}x{config.spatial_stride}"
    digest = hashlib.sha256(statistics).hexdigest()[:8]
    return f"{config.z_dim} channels, {strides}, width {config.dim}, statistics {digest}"


def write_latents(path: Path, latents: Iterable[Tensor], *, config: VAEConfig, fps: Fraction) -> LatentFile:
    """Appends pieces [1, Z, t, Y, X] as they come, in their dtype; the file appears whole or not at all.

    config: of the VAE that made them. Raises: ValueError for no piece at all.
    """
    shape: tuple[int, ...] = ()
    num_latents, dtype = 0, torch.float32
    with atomic_path(path) as temporary, temporary.open("wb") as file:
        file.write(bytes(8 + HEADER_BYTES))
        for piece in latents:
            frames_TZYX = piece[0].transpose(0, 1).contiguous().cpu()
            # As bytes, because NumPy knows no bfloat16.
            file.write(frames_TZYX.view(torch.uint8).numpy().data)
            num_latents += len(frames_TZYX)
            shape, dtype = tuple(frames_TZYX.shape[1:]), frames_TZYX.dtype
        if not num_latents:
            raise ValueError("[latents] must hold at least 1 latent frame, got none")
        written = LatentFile(
            StoredTensor(path, 8 + HEADER_BYTES, dtype, (num_latents, *shape)),
            vae=describe_vae(config),
            fps=fps,
            width=shape[2] * config.spatial_stride,
            height=shape[1] * config.spatial_stride,
            num_frames=1 + (num_latents - 1) * config.temporal_stride,
        )
        file.seek(0)
        file.write(_header(written))
    return written


def _header(file: LatentFile) -> bytes:
    stored = file.stored
    metadata = {
        "vae": file.vae, "fps": str(file.fps), "width": str(file.width), "height": str(file.height),
        "num_frames": str(file.num_frames), "dtype": str(stored.dtype).removeprefix("torch."),
    }  # fmt: skip
    entry = {"dtype": DTYPE_NAMES[stored.dtype], "shape": stored.shape, "data_offsets": [0, stored.num_bytes]}
    text = json.dumps({"__metadata__": metadata, TENSOR: entry}).encode().ljust(HEADER_BYTES)
    assert len(text) == HEADER_BYTES
    return HEADER_BYTES.to_bytes(8, "little") + text


def open_latents(path: Path, config: VAEConfig) -> LatentFile:
    """The latents in `path`, none of them read.

    Raises: FileNotFoundError; ValueError where the file is broken, holds something else, or latents of another VAE
        than that of `config`.
    """
    from safetensors import safe_open

    if not path.is_file():
        raise FileNotFoundError(f"[latents] file must exist, got {path}")
    stored = list_safetensors(path).get(TENSOR)
    with safe_open(path, framework="pt") as file:
        metadata = file.metadata() or {}
    if stored is None or len(stored.shape) != 4 or 0 in stored.shape or "vae" not in metadata:
        raise ValueError(f"[latents] file must be written by wan vae encode, {path} is not")
    if metadata["vae"] != describe_vae(config) or stored.shape[1] != config.z_dim:
        raise ValueError(
            f"[latents] must be of the VAE that decodes them ({describe_vae(config)}), "
            f"got {path} of another ({metadata['vae']}); choose its --model"
        )
    try:
        width, height, num_frames = (int(metadata[key]) for key in ("width", "height", "num_frames"))
        return LatentFile(stored, metadata["vae"], Fraction(metadata["fps"]), width, height, num_frames)
    except (KeyError, ValueError, ZeroDivisionError) as error:
        raise ValueError(f"[latents] {path} must say fps, width, height and num_frames, got {error!r}") from None
