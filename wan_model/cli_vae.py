"""`wan vae`: parses and nothing else, as `cli`; the work is in `commands/vae.py`."""

from pathlib import Path
from typing import Annotated

import typer

from wan_model.cli_options import DeviceOption, ModelOption, TileOption

vae_app = typer.Typer(help="Videos to latents and back, of any length.", no_args_is_help=True)

VideoArgument = Annotated[Path, typer.Argument(metavar="FILE", help="A video that FFmpeg reads, a GIF or a PNG.")]
ChunkOption = Annotated[str, typer.Option("--chunk", help="Latent frames at a time, or auto: what fits and pays.")]
OverlapOption = Annotated[
    int | None, typer.Option("--overlap", metavar="PIXELS", help="Of neighbouring tiles; 8 latents otherwise.")
]
DtypeOption = Annotated[str, typer.Option("--dtype", help="fp32 or bf16.")]
CropFlag = Annotated[
    bool, typer.Option("--crop", help="Cut off what does not fit: edges around the centre, the last frames.")
]


@vae_app.command("encode")
def vae_encode(
    source: VideoArgument,
    output: Annotated[
        Path | None, typer.Option("-o", "--output", "--out", help="A .safetensors file; that of FILE's name otherwise.")
    ] = None,
    model: ModelOption = "tiny",
    chunk: ChunkOption = "auto",
    tile: TileOption = "auto",
    overlap: OverlapOption = None,
    dtype: DtypeOption = "fp32",
    device: DeviceOption = None,
    crop: CropFlag = False,
) -> None:
    """Write the latents of a video, frame by frame as it is read.

    \b
    wan vae encode clip.mp4 -o clip.safetensors
    wan vae encode holiday.mov --crop --model Wan2.1-T2V-1.3B --dtype bf16
    """
    from wan_model.commands.vae import Options, encode

    encode(source, output, Options(model, chunk, dtype, device, tile, overlap), is_cropped=crop)


@vae_app.command("decode")
def vae_decode(
    source: Annotated[Path, typer.Argument(metavar="FILE", help="What wan vae encode wrote.")],
    output: Annotated[
        Path | None, typer.Option("-o", "--output", "--out", help=".mp4 or .gif; an .mp4 of FILE's name otherwise.")
    ] = None,
    model: ModelOption = "tiny",
    chunk: ChunkOption = "auto",
    tile: TileOption = "auto",
    overlap: OverlapOption = None,
    dtype: DtypeOption = "fp32",
    device: DeviceOption = None,
) -> None:
    """Write the video of latents, frame by frame as it is decoded.

    \b
    wan vae decode clip.safetensors -o clip.mp4
    wan vae decode large.safetensors -o large.mp4 --tile 512x512
    """
    from wan_model.commands.vae import Options, decode

    decode(source, output, Options(model, chunk, dtype, device, tile, overlap))


@vae_app.command("roundtrip")
def vae_roundtrip(
    source: VideoArgument,
    output: Annotated[
        Path | None, typer.Option("-o", "--output", "--out", help="Also write what comes back, .mp4 or .gif.")
    ] = None,
    model: ModelOption = "tiny",
    chunk: ChunkOption = "auto",
    tile: TileOption = "auto",
    overlap: OverlapOption = None,
    dtype: DtypeOption = "fp32",
    device: DeviceOption = None,
    crop: CropFlag = False,
    json_path: Annotated[
        Path | None, typer.Option("--json", metavar="FILE", help="Also write the figures here.")
    ] = None,
) -> None:
    """Encode a video and decode it again; print how near it comes (PSNR, SSIM) and how fast.

    \b
    wan vae roundtrip clip.mp4
    wan vae roundtrip clip.mp4 --crop --chunk 2 -o back.mp4 --json figures.json
    """
    from wan_model.commands.vae import Options, roundtrip

    roundtrip(source, output, json_path, Options(model, chunk, dtype, device, tile, overlap), is_cropped=crop)
