"""`wan bench report`: one self-contained page out of benchmark files: roofline, ratios, tables; light and dark.

HTML through Jinja, which torch brings along; the plots are a few lines of SVG in the page's own colours, which a
plotting library's pictures would not follow.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from wan_kernels import benchmark
from wan_kernels.benchmark import CLONE, COMPILED
from wan_model.video_io import atomic_path, check_directory

Record = dict[str, Any]
OURS = ("cuda", "triton", "cpu")
EAGER = "reference"
WIDTH, HEIGHT, MARGIN = 640, 320, 46


@dataclass(frozen=True)
class Group:
    """All backends on one op, case, dtype and direction."""

    name: str
    rows: list[Record]
    refused: list[Record]

    def find(self, backend: str) -> Record | None:
        return next((row for row in self.rows if row["backend"] == backend), None)

    @property
    def ours(self) -> Record | None:
        """The fastest of our backends."""
        own = [row for row in self.rows if row["backend"] in OURS]
        return min(own, key=lambda row: row["ms_median"], default=None)

    @property
    def rival(self) -> Record | None:
        """The fastest of what is neither ours, nor eager, nor the copy."""
        others = [row for row in self.rows if row["backend"] not in (*OURS, EAGER, CLONE)]
        return min(others, key=lambda row: row["ms_median"], default=None)


@dataclass(frozen=True)
class Bar:
    """How many times as fast ours is."""

    name: str
    against: str
    ratio: float
    percent: float  # of the widest bar


@dataclass(frozen=True)
class Dot:
    """A row on the roofline: position in the picture, and its name."""

    x: float
    y: float
    kind: str
    title: str


@dataclass(frozen=True)
class Tick:
    at: float
    label: str


def run(files: Sequence[Path], output: Path) -> None:
    """Writes the page, whole or not at all."""
    check_directory(output.parent)
    rows = [row for path in files for row in benchmark.load(path)]
    page = render(rows)
    with atomic_path(output) as path:
        path.write_text(page)
    print(output)


def render(rows: list[Record]) -> str:
    """The page. Rows of several devices stand apart, each under its own heading."""
    from jinja2 import Environment, PackageLoader, select_autoescape

    environment = Environment(
        loader=PackageLoader("wan_model.commands", "templates"), autoescape=select_autoescape(default=True)
    )
    devices = [section(name, [row for row in rows if row["device"] == name]) for name in distinct(rows, "device")]
    return environment.get_template("bench_report.html").render(devices=devices)


def section(device: str, rows: list[Record]) -> dict[str, Any]:
    groups = grouped(rows)
    return {
        "device": device,
        "commits": ", ".join(distinct(rows, "commit")),
        "versions": ", ".join(f"{key} {value}" for key, value in (rows[0]["versions"] or {}).items()),
        "eager": bars(groups, "eager PyTorch", lambda group: group.find(EAGER)),
        "rivals": bars(groups, "the best rival", lambda group: group.rival),
        "roofline": roofline(groups),
        "groups": groups,
        "has_error": any(row.get("sqnr_db") is not None for row in rows),
    }


def distinct(rows: list[Record], key: str) -> list[str]:
    return [str(value) for value in dict.fromkeys(row[key] for row in rows) if value is not None]


def grouped(rows: list[Record]) -> list[Group]:
    names = list(dict.fromkeys(row["name"].rpartition("/")[0] for row in rows))
    members = {name: [row for row in rows if row["name"].rpartition("/")[0] == name] for name in names}
    return [
        Group(
            name,
            [row for row in members[name] if row["ms_median"] is not None],
            [row for row in members[name] if row["ms_median"] is None],
        )
        for name in names
    ]


def bars(groups: list[Group], what: str, other: Any) -> list[Bar]:
    """Ours against another, for each group that has both, in the order of the file."""
    pairs = [(group.name, group.ours, other(group)) for group in groups]
    ratios = [
        (name, theirs["backend"], theirs["ms_median"] / ours["ms_median"])
        for name, ours, theirs in pairs
        if ours is not None and theirs is not None
    ]
    widest = max((ratio for _, _, ratio in ratios), default=1.0)
    return [
        Bar(name, "torch.compile" if rival == COMPILED else rival, ratio, 100 * ratio / widest)
        for name, rival, ratio in ratios
    ]


def roofline(groups: list[Group]) -> dict[str, Any] | None:
    """Intensity (FLOPs per byte) against rate, both logarithmic; the slope is the fastest copy of the file."""
    shown = [(group, row) for group in groups for row in group.rows if row["flops"] and row["num_bytes"]]
    copies = [row["gbps"] for group in groups for row in group.rows if row["backend"] == CLONE]
    if not shown or not copies:
        return None
    bandwidth = max(copies)
    top_rate = max(row["tflops"] for _, row in shown)
    intensities = [row["flops"] / row["num_bytes"] for _, row in shown]
    low_x, high_x = math.floor(math.log10(min(intensities))), math.ceil(math.log10(max(intensities)) + 1e-9)
    low_y = math.floor(math.log10(min(row["tflops"] for _, row in shown)))
    high_y = math.ceil(math.log10(top_rate) + 1e-9)

    def x_of(intensity: float) -> float:
        return MARGIN + (math.log10(intensity) - low_x) / max(1, high_x - low_x) * (WIDTH - 2 * MARGIN)

    def y_of(rate: float) -> float:
        return HEIGHT - MARGIN - (math.log10(rate) - low_y) / max(1, high_y - low_y) * (HEIGHT - 2 * MARGIN)

    # The copy's line, cut where it leaves the picture: rate in TFLOP/s = GB/s * FLOPs per byte / 1000.
    starts = max(10.0**low_x, 10.0**low_y * 1000 / bandwidth)
    ends = min(10.0**high_x, 10.0**high_y * 1000 / bandwidth)
    return {
        "width": WIDTH,
        "height": HEIGHT,
        "margin": MARGIN,
        "bandwidth": bandwidth,
        "line": (x_of(starts), y_of(bandwidth * starts / 1000), x_of(ends), y_of(bandwidth * ends / 1000)),
        "dots": [
            Dot(x_of(row["flops"] / row["num_bytes"]), y_of(row["tflops"]), kind(row), row["name"]) for _, row in shown
        ],
        "x_ticks": [Tick(x_of(10.0**power), f"{10.0**power:g}") for power in range(low_x, high_x + 1)],
        "y_ticks": [Tick(y_of(10.0**power), f"{10.0**power:g}") for power in range(low_y, high_y + 1)],
    }


def kind(row: Record) -> str:
    return "ours" if row["backend"] in OURS else "eager" if row["backend"] == EAGER else "rival"
