"""The README's table of CPU figures, written from a results file: nobody types a speed.

python -m benchmarks.readme_table benchmarks/results/epyc-zen4-2core/ops.json
"""

import argparse
from pathlib import Path
from typing import Any

from wan_kernels import benchmark

README = Path(__file__).resolve().parents[1] / "README.md"
BEGIN, END = "<!-- figures: benchmarks.readme_table -->", "<!-- end of figures -->"
Record = dict[str, Any]


def table(path: Path) -> str:
    """Markdown: one line for each op, case, dtype and direction that ours has a figure for."""
    rows = [row for row in benchmark.load(path) if row["ms_median"] is not None]
    by_name = {row["name"]: row for row in rows}
    ours = [row for row in rows if row["backend"] == "cpu"]
    lines = [line(row, by_name) for row in ours]
    heading = "| op, case, direction | ours, ms | eager, ms | times as fast | of a copy's time |\n|---|--:|--:|--:|--:|"
    return "\n".join((f"{source(path, rows)}\n", heading, *lines))


def source(path: Path, rows: list[Record]) -> str:
    row = rows[0]
    place = path.resolve().relative_to(README.parent)
    threads = row["versions"].get("num_threads")
    return f"{row['device']}, {threads} threads, torch {row['versions']['torch']}, commit {row['commit']} (`{place}`):"


def line(row: Record, by_name: dict[str, Record]) -> str:
    stem = row["name"].rpartition("/")[0]
    eager, copy = by_name.get(f"{stem}/reference"), by_name.get(f"{stem}/clone")
    cells = [
        f"`{row['op']}` {row['case']}, {row['dtype']}, {row['direction']}",
        f"{row['ms_median']:.2f}",
        f"{eager['ms_median']:.1f}" if eager else "",
        f"{eager['ms_median'] / row['ms_median']:.1f}" if eager else "",
        f"{row['ms_median'] / copy['ms_median']:.2f}" if copy and row["bound"] == "memory" else "",
    ]
    return f"| {' | '.join(cells)} |"


def updated(text: str, path: Path) -> str:
    """The README with the table of `path` between its two marks."""
    before, mark, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not (mark and end):
        raise ValueError(f"[readme] the README must hold {BEGIN} and {END}, it does not")
    return f"{before}{BEGIN}\n\n{table(path)}\n\n{END}{after}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("results", type=Path)
    options = parser.parse_args()
    README.write_text(updated(README.read_text(), options.results))


if __name__ == "__main__":
    main()
