"""`wan vae`: what can be wrong found first, then frames and latents pass through one at a time."""

import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch
from torch import Tensor

import wan_model
from wan_model.checkpoints import load_vae
from wan_model.commands.progress import bar
from wan_model.commands.vae_source import Source, open_source
from wan_model.config import VAEConfig
from wan_model.heap import return_large_blocks
from wan_model.latent_files import SUFFIX, describe_vae, open_latents, write_latents
from wan_model.metrics import WINDOW, psnr, ssim
from wan_model.pipeline import find_model, resolve_device
from wan_model.plan import free_bytes
from wan_model.tables import print_table
from wan_model.vae import WanVAE
from wan_model.vae_plan import Direction, VAEPlan, check_tile, parse_tile, plan_vae
from wan_model.vae_stream import check_chunk, watched_latents
from wan_model.vae_tiles import Spool, decode_tiles, encode_tiles
from wan_model.video_io import atomic_path, check_directory, check_output, dump_json, frames_of, write_video

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}


@dataclass(frozen=True)
class Options:
    """What all three commands are told: which model, latent frames at a time, dtype, device, where frames are cut."""

    model: str
    chunk: str
    dtype: str
    device: str | None
    tile: str = "auto"
    overlap: int | None = None

    def check(self, config: VAEConfig) -> None:
        """Raises: ValueError for what can be seen to be wrong without weights."""
        if self.dtype not in DTYPES:
            raise ValueError(f"[dtype] must be one of {', '.join(DTYPES)}, got {self.dtype!r}")
        if self.chunk != "auto":
            if not self.chunk.lstrip("-").isdecimal():
                raise ValueError(f"[chunk] must be auto or a number of latent frames, got {self.chunk!r}")
            check_chunk(int(self.chunk))
        check_tile(parse_tile(self.tile), self.overlap, config.spatial_stride)
        resolve_device(self.device)

    def config(self) -> VAEConfig:
        _, config = find_model(self.model)
        return config.vae

    def load(self, config: VAEConfig) -> WanVAE:
        directory, _ = find_model(self.model)
        return_large_blocks()
        return load_vae(directory, config, dtype=DTYPES[self.dtype], device=resolve_device(self.device))

    def plan(self, vae: WanVAE, height: int, width: int, direction: Direction, num_frames: int | None) -> VAEPlan:
        """Says on stderr what was picked and why, where it was not given."""
        plan = plan_vae(
            vae, height, width, free_bytes(vae.conv2.weight.device), direction=direction,
            chunk=None if self.chunk == "auto" else int(self.chunk), tile=parse_tile(self.tile), overlap=self.overlap,
            num_frames=num_frames,
        )  # fmt: skip
        if self.chunk == "auto" or plan.tiling.num_tiles > 1:
            print(plan.why, file=sys.stderr)
        return plan


def encode(source: Path, output: Path | None, options: Options, *, is_cropped: bool) -> None:
    config = options.config()
    options.check(config)
    output = output or Path(source.stem + SUFFIX)
    if output.suffix != SUFFIX:
        raise ValueError(f"[output] name must end in {SUFFIX}, got {output.name!r}")
    check_directory(output.parent)
    video = open_source(source, config, is_cropped=is_cropped)
    vae = options.load(config)
    plan = options.plan(vae, video.height, video.width, "encode", video.num_frames)
    with progress("encoding", video.num_frames, plan.tiling.num_tiles) as advance:
        latents = encode_tiles(vae, lambda: watched(video.frames(), advance), plan.tiling, plan.chunk)
        write_latents(output, latents, config=config, fps=video.fps)
    print(output)


def decode(source: Path, output: Path | None, options: Options) -> None:
    config = options.config()
    options.check(config)
    output = output or Path(source.stem + ".mp4")
    latents = open_latents(source, config)
    check_output(output, latents.num_frames)
    vae = options.load(config)
    plan = options.plan(vae, latents.height, latents.width, "decode", latents.num_frames)
    with progress("decoding", latents.num_frames, plan.tiling.num_tiles) as advance:
        pieces = watched_latents(latents.pieces, advance, config.temporal_stride)
        announce(*write_video(output, frames_of(decode_tiles(vae, pieces, plan.tiling, plan.chunk)), latents.fps))


def roundtrip(source: Path, output: Path | None, json_path: Path | None, options: Options, *, is_cropped: bool) -> None:
    config = options.config()
    options.check(config)
    video = open_source(source, config, is_cropped=is_cropped)
    if output is not None:
        check_output(output, video.num_frames or 2)
    if json_path is not None:
        check_directory(json_path.parent)
    vae = options.load(config)
    plan = options.plan(vae, video.height, video.width, "roundtrip", video.num_frames)
    figures = Figures()
    with progress("encoding, decoding", video.num_frames, 2 * plan.tiling.num_tiles) as advance:
        parts = compared(vae, video, plan, figures, advance)
        written = None if output is None else write_video(output, frames_of(parts), video.fps)
        for _ in parts:
            pass
    rows = summary(figures, video, config)
    print_table(f"{source}, chunks of {plan.chunk}, {options.dtype}", ("what", "amount"), rows, right=("amount",))
    if json_path is not None:
        with atomic_path(json_path) as temporary:
            dump_json(temporary, record(figures, video, config, options, plan))
        print(json_path)
    if written is not None:
        announce(*written)


@dataclass
class Figures:
    """What a roundtrip measured: one PSNR and one SSIM for each frame, and where the time went."""

    psnr_db: list[float] = field(default_factory=list)
    ssim: list[float] = field(default_factory=list)
    encode_s: float = 0.0
    decode_s: float = 0.0


def compared(
    vae: WanVAE, video: Source, plan: VAEPlan, figures: Figures, advance: Callable[[int], None]
) -> Iterator[Tensor]:
    """The frames that come back, each held against the one that went in, which is read once more."""
    device = vae.conv2.weight.device
    reading: list[Timed] = []

    def frames() -> Iterator[Tensor]:
        reading.append(Timed(watched(video.frames(), advance), device))
        return reading[-1]

    with Spool() as latents:
        encoded = Timed(encode_tiles(vae, frames, plan.tiling, plan.chunk), device)
        for piece in encoded:
            latents.append(piece)
        figures.encode_s = encoded.seconds - sum(each.seconds for each in reading)
        pieces = watched_latents(lambda: latents, advance, vae.config.temporal_stride)
        decoded = Timed(decode_tiles(vae, pieces, plan.tiling, plan.chunk), device)
        originals = video.frames()
        for part in decoded:
            came = part.float().cpu()
            went = torch.cat([next(originals) for _ in range(came.shape[2])], dim=2)
            figures.psnr_db += psnr(came, went)[0].tolist()
            if min(came.shape[3:]) >= WINDOW:
                figures.ssim += ssim(came, went)[0].tolist()
            figures.decode_s = decoded.seconds
            yield came


class Timed:
    """An iterator that counts the seconds spent waiting for its items."""

    def __init__(self, items: Iterator[Tensor], device: torch.device):
        self.items, self.device = items, device
        self.seconds = 0.0

    def __iter__(self) -> Iterator[Tensor]:
        return self

    def __next__(self) -> Tensor:
        started = time.perf_counter()
        try:
            item = next(self.items)
            if self.device.type == "cuda":
                torch.cuda.synchronize(self.device)
            return item
        finally:
            self.seconds += time.perf_counter() - started


def mean(values: list[float]) -> float | None:
    return sum(values) / len(values) if values else None


def summary(figures: Figures, video: Source, config: VAEConfig) -> list[tuple[str, str]]:
    num_frames, similarity = len(figures.psnr_db), mean(figures.ssim)
    values = config.z_dim * (1 + (num_frames - 1) // config.temporal_stride)
    values *= (video.height // config.spatial_stride) * (video.width // config.spatial_stride)
    return [
        ("frames", f"{num_frames} of {video.width}x{video.height}"),
        ("colour values for each latent value", f"{3 * num_frames * video.height * video.width / values:.1f}"),
        ("PSNR, mean over frames", f"{mean(figures.psnr_db):.2f} dB"),
        ("PSNR, worst frame", f"{min(figures.psnr_db):.2f} dB"),
        ("SSIM, mean over frames", f"needs {WINDOW}x{WINDOW}" if similarity is None else f"{similarity:.4f}"),
        ("encoding", f"{figures.encode_s:.2f} s, {num_frames / figures.encode_s:.1f} frames/s"),
        ("decoding", f"{figures.decode_s:.2f} s, {num_frames / figures.decode_s:.1f} frames/s"),
    ]


def record(figures: Figures, video: Source, config: VAEConfig, options: Options, plan: VAEPlan) -> dict[str, object]:
    num_frames = len(figures.psnr_db)
    rows, columns = (side * config.spatial_stride for side in plan.tiling.tile)
    return {
        "file": str(video.path), "vae": describe_vae(config), **asdict(options), "chunk": plan.chunk,
        "tile": f"{columns}x{rows}", "overlap": plan.tiling.overlap * config.spatial_stride,
        "num_tiles": plan.tiling.num_tiles,
        "device": str(resolve_device(options.device)), "width": video.width, "height": video.height,
        "fps": str(video.fps), "num_frames": num_frames, "psnr_db": mean(figures.psnr_db),
        "psnr_db_worst": min(figures.psnr_db), "ssim": mean(figures.ssim), "encode_s": figures.encode_s,
        "decode_s": figures.decode_s, "encode_frames_per_s": num_frames / figures.encode_s,
        "decode_frames_per_s": num_frames / figures.decode_s,
        "versions": {"wan": wan_model.__version__, "torch": torch.__version__},
    }  # fmt: skip


def announce(path: Path, remark: str) -> None:
    """The path on stdout, for scripts; the remark on stderr, for people."""
    print(path)
    if remark:
        print(f"note: {remark}", file=sys.stderr)


def watched(parts: Iterable[Tensor], advance: Callable[[int], None]) -> Iterator[Tensor]:
    for part in parts:
        yield part
        advance(part.shape[2])


@contextmanager
def progress(what: str, num_frames: int | None, num_passes: int) -> Iterator[Callable[[int], None]]:
    """A callback told how many frames have passed: every tile is a pass through all of them."""
    with bar(what, "frames", num_frames and num_passes * num_frames) as (drawn, task):
        yield lambda count: drawn.advance(task, count)
