"""`wan bench ops`: figures as they come on a terminal, one table at the end, JSON where asked."""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from wan_kernels import benchmark
from wan_kernels.benchmark import Row
from wan_model.pipeline import resolve_device
from wan_model.video_io import check_directory


def run(json_path: Path | None, *, device: str | None, budget_s: float, **choices: list[str] | None) -> None:
    """choices: ops, backends, cases, dtypes, directions as `benchmark.measure` takes them; None leaves its default."""
    device = str(resolve_device("cpu" if device is None and "cpu" in (choices["backends"] or ()) else device))
    if json_path is not None:
        check_directory(json_path.parent)
    if budget_s <= 0:
        raise ValueError(f"[bench] seconds must be positive, got {budget_s}")
    chosen: dict[str, Any] = {name: names for name, names in choices.items() if names is not None}
    rows = list(watched(benchmark.measure(**chosen, device=device, budget_s=budget_s)))
    print(benchmark.table(rows))
    if json_path is not None:
        benchmark.save(rows, json_path, device)
        print(f"\n{json_path}")


def run_once(device: str | None, **choices: list[str] | None) -> None:
    """One call of one op for a profiler; prints its name. Each choice must name exactly one."""
    several = [name for name, given in choices.items() if given is None or len(given) != 1]
    if several:
        raise ValueError(
            f"[bench] --ncu must be told one op, backend, case, dtype and direction, got none or several {several[0]}"
        )
    place = resolve_device(device)
    if place.type != "cuda":
        raise ValueError(f"[bench] --ncu must run on a CUDA device, got {place}")
    one: list[Any] = [given[0] for given in choices.values() if given]
    op, backend, case, dtype, direction = one
    print(benchmark.run_once(op, backend, case, dtype, direction, str(place)))


def watched(rows: Iterable[Row]) -> Iterator[Row]:
    """The same rows, each named on stderr as it comes; silent in a pipe."""
    from rich.console import Console

    console = Console(stderr=True)
    with console.status("measuring") as status:
        for row in rows:
            status.update(f"measured {row.name}")
            yield row
