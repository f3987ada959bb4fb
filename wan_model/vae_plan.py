"""How many latent frames the VAE works on at a time: as many as fit, up to where more no longer pays.

Model of the peak: the network itself is traced on meta tensors for chunks of 1 and of 2 latent frames, in the third of
three chunks, when every cache is filled; from there memory grows by the same amount with each frame. Against the
resident memory of a process, in MB, traced / measured, with 2 CPU threads, the tiny VAE, 832x480, float32:

    chunk                              1             2             4
    decode, torch's convolution    796 /  813   1176 / 1179   1935 / 1829
    decode, ours in C++            744 /  545   1072 /  663   1726 /  986
    encode, torch's convolution    570 /  624    896 /  826   1548 / 1391
    encode, ours in C++            538 /  340    883 /  508   1574 /  917

The trace is that of the reference, so kernels that need no copies stay below it.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import Literal

import torch
from torch import Tensor

from wan_model.config import VAEConfig
from wan_model.plan import gigabytes, on_meta
from wan_model.tracing import trace
from wan_model.vae import WanVAE

Direction = Literal["encode", "decode", "roundtrip"]

# What kernels take inside themselves and the allocator keeps, over what is traced: at most 10 % in the table above.
# Some 10 MB come on top at any size, and torch pads layers narrower than 16 channels, to 1.8 times what is traced.
MARGIN = 1.25
# More at a time spreads the cost of a call over more frames, which pays where frames are small: on 2 CPU threads and
# torch's convolution the tiny VAE encoded 149 frames/s of 96x96 one latent at a time, 233 by fours, 196 by eights; of
# 832x480 4.7 and 3.4. Beyond this many bytes a CPU works on one at a time. Not measured on a GPU.
MAX_CHUNK = 4
MAX_CPU_BYTES = 500 * 10**6


@dataclass(frozen=True)
class ChunkPlan:
    """Latent frames at a time, the bytes expected at the peak (weights not counted), and the reason in one line."""

    chunk: int
    peak_bytes: int
    why: str


def plan_chunk(
    vae: WanVAE,
    height: int,
    width: int,
    free_bytes: int | None,
    *,
    direction: Direction = "roundtrip",
) -> ChunkPlan:
    """The longest chunk whose peak fits into `free_bytes`, up to where more is no faster.

    height, width: of the video, in pixels. free_bytes: None where nobody knows; then 1.
    Raises: ValueError where not even one latent frame fits.
    """
    one, two = (peak_bytes(vae.config, height, width, chunk, vae.dtype, direction) for chunk in (1, 2))
    size = f"{direction} at {width}x{height}"
    if free_bytes is None:
        return ChunkPlan(1, one, f"chunk 1: {size} takes {gigabytes(one)}, free memory unknown")
    if one > free_bytes:
        raise ValueError(
            f"[memory] {size} must have {gigabytes(one)} free at 1 latent frame at a time, got {gigabytes(free_bytes)};"
            " make the video smaller, or choose --dtype bf16"
        )
    is_on_cpu = vae.conv2.weight.device.type == "cpu"
    usable = min(free_bytes, MAX_CPU_BYTES) if is_on_cpu else free_bytes
    chunk = max(1, min(MAX_CHUNK, 1 + (usable - one) // max(1, two - one)))
    peak = one + (chunk - 1) * (two - one)
    fits = peak + (two - one) <= free_bytes
    why = "more would not be faster" if fits else "more would not fit"
    return ChunkPlan(chunk, peak, f"chunk {chunk}: {size} takes {gigabytes(peak)} of {gigabytes(free_bytes)}; {why}")


@cache
def peak_bytes(
    config: VAEConfig, height: int, width: int, chunk: int, dtype: torch.dtype, direction: Direction = "roundtrip"
) -> int:
    """Bytes at the peak of a stream, traced and multiplied by `MARGIN`; weights not counted."""
    vae = on_meta(lambda: WanVAE(config)).to(dtype)
    stride, space = config.temporal_stride, config.spatial_stride
    num_latents = 3 * chunk

    def zeros(channels: int, count: int, rows: int, columns: int) -> Iterator[Tensor]:
        for _ in range(count):
            yield torch.empty(1, channels, 1, rows, columns, device="meta")

    def run() -> None:
        latents = zeros(config.z_dim, num_latents, height // space, width // space)
        if direction != "decode":
            latents = vae.encode_stream(zeros(3, 1 + stride * (num_latents - 1), height, width), chunk)
        for _ in latents if direction == "encode" else vae.decode_stream(latents, chunk):
            pass

    return int(MARGIN * trace(run).peak_bytes)
