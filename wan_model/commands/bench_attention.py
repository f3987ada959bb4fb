"""`wan bench attention`: every way to compute attention on the same inputs, how near and how fast."""

import sys
from pathlib import Path

from wan_kernels import benchmark
from wan_kernels.attention_bench.contenders import check_names
from wan_kernels.attention_bench.inputs import loaders
from wan_kernels.attention_bench.measure import measure, table
from wan_model.pipeline import resolve_device
from wan_model.video_io import check_directory

# The tokens of 832x480 and 1280x720 at 81 frames, and a quarter of the former; what a CPU does in seconds.
TOKENS = {"cuda": [7800, 32760, 75600], "cpu": [7800]}
HEADS = {"cuda": 40, "cpu": 1}
INPUTS = ["random", "outlier", "video"]


def run(
    json_path: Path | None,
    *,
    tokens: str | None,
    num_heads: int | None,
    head_width: int,
    inputs: list[str] | None,
    backends: list[str] | None,
    device: str | None,
    budget_s: float,
) -> int:
    """Prints the table; returns 1 if a row is red."""
    place = resolve_device(device)
    if budget_s <= 0:
        raise ValueError(f"[bench] seconds must be positive, got {budget_s}")
    counts = TOKENS[place.type] if tokens is None else numbers("tokens", tokens)
    num_heads = HEADS[place.type] if num_heads is None else num_heads
    for name, value in (("tokens", min(counts)), ("heads", num_heads), ("head-width", head_width)):
        if value < 1:
            raise ValueError(f"[bench] {name} must be at least 1, got {value}")
    check_names(backends or ())
    loads = list(
        loaders(inputs or INPUTS, tokens=counts, num_heads=num_heads, head_width=head_width, device=str(place))
    )
    if json_path is not None:
        check_directory(json_path.parent)
    rows = list(measure(loads, backends, device=str(place), budget_s=budget_s, tell=tell))
    print(table(rows))
    if json_path is not None:
        benchmark.save(rows, json_path, str(place))
        print(f"\n{json_path}")
    return int(any(row.is_red for row in rows))


def numbers(what: str, text: str) -> list[int]:
    """`7800,32760` to [7800, 32760]."""
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isdecimal() for part in parts):
        raise ValueError(f"[{what}] must be whole numbers with commas between, got {text!r}")
    return [int(part) for part in parts]


def tell(line: str) -> None:
    """On stderr: at real lengths a single call takes seconds, on a CPU minutes."""
    print(line, file=sys.stderr, flush=True)
