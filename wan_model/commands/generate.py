"""`wan generate`: settings checked, networks loaded, progress shown, files written."""

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import torch

import wan_model
from wan_model.commands.progress import bar
from wan_model.conditioning import check_task
from wan_model.heap import return_large_blocks
from wan_model.pipeline import (
    Callback,
    StepInfo,
    check_layers,
    default_precision,
    find_model,
    load_pipeline,
    resolve_device,
    sample,
    to_8bit,
)
from wan_model.plan import check_memory, estimate_memory
from wan_model.quantize import CODES, LayerError, LayerPlan, Precision, dtype_of
from wan_model.settings import make_settings
from wan_model.tables import print_table
from wan_model.vae_plan import check_tile, least_bytes, parse_tile
from wan_model.video_io import Saved, check_output, to_frames, write_image


def run(
    prompts: list[str],
    output: Path | None,
    *,
    model: str,
    preset: str | None,
    device: str | None,
    precision: str | None,
    show_layers: bool,
    show_preview: bool,
    tile: str,
    options: dict[str, Any],
) -> None:
    """Everything that can be wrong is found before the first weight is read."""
    _, config = find_model(model, preset)
    settings = make_settings(config, prompts, **options)
    check_task(config)
    output = output or Path("out.png" if settings.num_frames == 1 else "out.mp4")
    check_output(output, settings.num_frames)
    choice = parse_tile(tile)
    check_tile(choice, None, config.vae.spatial_stride)
    place = resolve_device(device)
    resolve_device(settings.noise_device)
    chosen = cast(Precision, precision) if precision else default_precision(place)
    needed = estimate_memory(config, settings.size, settings.num_frames, dtype=dtype_of(chosen), batch=len(prompts))
    if choice != "none":
        width, height = settings.size
        least = least_bytes(config.vae, height, width, torch.float32, "decode")
        needed = replace(needed, decode_peak_bytes=min(needed.decode_peak_bytes, least))
    check_memory(needed, place)
    if show_layers and chosen not in CODES:
        raise ValueError(f"[layers] --layers needs --precision {' or '.join(CODES)}, got {chosen}")

    return_large_blocks()
    pipeline = load_pipeline(model, preset=preset, precision="bf16" if show_layers else chosen, device=place)
    if show_layers:
        errors = check_layers(pipeline, settings, chosen)
        pipeline, plan = to_8bit(pipeline, chosen)
        print_layers(plan, errors)
    started = time.perf_counter()
    preview_path = output.with_suffix(".preview.png")
    try:
        with progress(settings.num_steps) as advance:
            result = sample(pipeline, settings, with_preview(advance, preview_path) if show_preview else advance)
    finally:
        if show_preview:
            preview_path.unlink(missing_ok=True)
    facts = {
        "sampling_s": round(time.perf_counter() - started, 2),
        "versions": {"wan": wan_model.__version__, "torch": torch.__version__},
    }
    decoding = result.plan_decoding(choice)
    print(decoding.why, file=sys.stderr)
    num_frames = len(prompts) * decoding.tiling.num_tiles * settings.num_frames
    with bar("decoding", "frames", num_frames) as (drawn, task):
        saved = result.save(output, plan=decoding, advance=lambda count: drawn.advance(task, count), **facts)
    for each in saved:
        announce(each)


def print_layers(plan: list[LayerPlan], errors: list[LayerError]) -> None:
    """On stderr: stdout is for paths."""
    with redirect_stdout(sys.stderr):
        print_table("what each layer runs", ("layers", "runs", "why"), [(p.layers, p.runs, p.why) for p in plan])
        rows = [(each.layer, f"{each.sqnr_db:.1f}") for each in errors]
        print_table("8 bits against bfloat16", ("layer", "SQNR dB"), rows, right=("SQNR dB",))


def announce(saved: Saved) -> None:
    """One path per line on stdout, for scripts; remarks on stderr, for people."""
    for path in (saved.video, saved.sheet, saved.record):
        print(path)
    if saved.remark:
        print(f"note: {saved.remark}", file=sys.stderr)


@contextmanager
def progress(num_steps: int) -> Iterator[Callback]:
    """A callback that draws step, share done and time left."""
    with bar("sampling", "steps", num_steps) as (drawn, task):

        def advance(info: StepInfo) -> None:
            drawn.update(task, completed=info.step)

        yield advance


def with_preview(callback: Callback, path: Path) -> Callback:
    """`callback`, and the first frame of the first video as now expected, written to `path`."""

    def show(info: StepInfo) -> bool | None:
        write_image(path, to_frames(info.preview()[0])[0])
        return callback(info)

    return show
