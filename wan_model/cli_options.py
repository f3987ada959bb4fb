"""Options that several commands share."""

from typing import Annotated

import typer

ModelOption = Annotated[str, typer.Option("--model", help='"tiny", or the directory of a released checkpoint.')]
SizeOption = Annotated[str | None, typer.Option("--size", help="Width x height in pixels, as in 832x480.")]
FramesOption = Annotated[int | None, typer.Option("--frames", help="Number of frames, 4n + 1; 1 makes an image.")]
DeviceOption = Annotated[str | None, typer.Option("--device", help="cpu or cuda; the GPU where there is one.")]
TileOption = Annotated[
    str, typer.Option("--tile", help="Width x height in pixels, none, or auto: none where whole frames fit in memory.")
]
JsonFlag = Annotated[bool, typer.Option("--json", help="Print JSON instead of tables.")]
