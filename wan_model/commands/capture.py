"""`wan capture`: what can be wrong found first, a run watched, its file written."""

from pathlib import Path
from typing import Any, cast

from wan_kernels.attention_bench.inputs import SUFFIX
from wan_model.capture import capture, check_places, write
from wan_model.commands.bench_attention import numbers
from wan_model.commands.generate import progress
from wan_model.conditioning import check_task
from wan_model.pipeline import default_precision, find_model, load_pipeline, resolve_device
from wan_model.quantize import CODES, Precision, dtype_of
from wan_model.settings import make_settings
from wan_model.tables import si
from wan_model.video_io import check_directory


def run(
    output: Path,
    *,
    prompt: str,
    model: str,
    layers: str | None,
    steps: str,
    device: str | None,
    precision: str | None,
    options: dict[str, Any],
) -> None:
    if output.suffix != SUFFIX:
        raise ValueError(f"[output] name must end in {SUFFIX}, got {output.name!r}")
    check_directory(output.parent)
    _, config = find_model(model)
    check_task(config)
    settings = make_settings(config, [prompt], **options)
    num_layers = config.dit.num_layers
    wanted_layers = list(range(num_layers)) if layers is None else numbers("layers", layers)
    wanted_steps = numbers("steps", steps)
    check_places(wanted_layers, wanted_steps, num_layers=num_layers, num_steps=settings.num_steps)
    place = resolve_device(device)
    chosen = cast(Precision, precision) if precision else default_precision(place)
    dtype_of(chosen)
    if chosen in CODES:
        raise ValueError(f"[capture] precision must be fp32 or bf16, whose attention sees no codes, got {chosen}")

    pipeline = load_pipeline(model, precision=chosen, device=place)
    with progress(max(wanted_steps) + 1) as advance:
        captures = capture(pipeline, settings, layers=wanted_layers, steps=wanted_steps, callback=advance)
    write(output, captures, settings, config.name)
    print(f"{output}: {len(captures)} attentions, {si(output.stat().st_size, 'B')}")
