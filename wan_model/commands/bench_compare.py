"""`wan bench compare`: two files of the same device, row by row; slower by more than allowed is a failure."""

from dataclasses import dataclass
from pathlib import Path

from wan_kernels import benchmark
from wan_model.tables import print_table


@dataclass(frozen=True)
class Change:
    """One figure in both files: milliseconds, and new over old."""

    name: str
    old_ms: float
    new_ms: float
    is_clear: bool  # the middle four fifths of the runs do not overlap

    @property
    def ratio(self) -> float:
        return self.new_ms / self.old_ms


def parse_percent(text: str) -> float:
    """`5%` or `5`: a share of 0.05."""
    try:
        value = float(text.removesuffix("%"))
    except ValueError:
        value = -1.0
    if value < 0:
        raise ValueError(f"[bench] --fail-over must be a percentage such as 5%, got {text!r}")
    return value / 100


def changes(old: Path, new: Path) -> list[Change]:
    """Rows with a figure in both files. Raises ValueError where the devices differ or no row is in both."""
    before = {row["name"]: row for row in benchmark.load(old) if row["ms_median"] is not None}
    after = {row["name"]: row for row in benchmark.load(new) if row["ms_median"] is not None}
    shared = [name for name in before if name in after]
    if not shared:
        raise ValueError(f"[bench] {old} and {new} must have rows of the same name, got none in both")
    devices = {row["device"] for name in shared for row in (before[name], after[name])}
    if len(devices) > 1:
        raise ValueError(f"[bench] figures must come from one kind of device, got {' and '.join(sorted(devices))}")
    return [change(name, before[name], after[name]) for name in shared]


def change(name: str, old: dict[str, float], new: dict[str, float]) -> Change:
    is_clear = old["ms_p90"] < new["ms_p10"] or new["ms_p90"] < old["ms_p10"]
    return Change(name, old["ms_median"], new["ms_median"], is_clear)


def run(old: Path, new: Path, fail_over: str) -> int:
    """Prints the rows, the largest change first; returns 1 if one is clearly slower by more than `fail_over`."""
    allowed = parse_percent(fail_over)
    found = sorted(changes(old, new), key=lambda each: -abs(each.ratio - 1))
    slower = [each for each in found if each.is_clear and each.ratio > 1 + allowed]
    rows = [
        (
            each.name,
            f"{each.old_ms:.4f}",
            f"{each.new_ms:.4f}",
            f"{100 * (each.ratio - 1):+.1f} %",
            verdict(each, slower),
        )
        for each in found
    ]
    numbers = ("old ms", "new ms", "change")
    print_table(f"{old} -> {new}", ("row", *numbers, ""), rows, right=numbers)
    print(f"{len(slower)} of {len(found)} rows slower by more than {100 * allowed:g} %")
    return 1 if slower else 0


def verdict(each: Change, slower: list[Change]) -> str:
    if each in slower:
        return "SLOWER"
    return "" if each.is_clear else "within the noise"
