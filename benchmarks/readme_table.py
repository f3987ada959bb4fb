"""The README's tables of CPU figures, written from results files: nobody types a speed.

python -m benchmarks.readme_table benchmarks/results/epyc-zen4-2core/{ops,attention,dit,vae}.json
"""

import argparse
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from wan_kernels import benchmark

README = Path(__file__).resolve().parents[1] / "README.md"
Record = dict[str, Any]
Table = Callable[[Sequence[Record]], list[str]]


def ops_table(rows: Sequence[Record]) -> list[str]:
    """One line for each op, case, dtype and direction that ours has a figure for."""
    by_name = {row["name"]: row for row in rows}
    heading = [
        "| op, case, direction | ours, ms | eager, ms | times as fast | of a copy's time |",
        "|---|--:|--:|--:|--:|",
    ]
    return heading + [op_line(row, by_name) for row in rows if row["backend"] == "cpu"]


def op_line(row: Record, by_name: dict[str, Record]) -> str:
    stem = row["name"].rpartition("/")[0]
    eager, copy = by_name.get(f"{stem}/reference"), by_name.get(f"{stem}/clone")
    return joined(
        f"`{row['op']}` {row['case']}, {row['dtype']}, {row['direction']}",
        f"{row['ms_median']:.2f}",
        f"{eager['ms_median']:.1f}" if eager else "",
        f"{eager['ms_median'] / row['ms_median']:.1f}" if eager else "",
        f"{row['ms_median'] / copy['ms_median']:.2f}" if copy and row["bound"] == "memory" else "",
    )


def attention_table(rows: Sequence[Record]) -> list[str]:
    """One line for each input and contender: how fast, and beside it how near to float64."""
    heading = ["| tokens, input | what runs | ms | TOPS | of torch's fastest | cosine | relative L1 |"]
    return [*heading, "|---|---|--:|--:|--:|--:|--:|", *(attention_line(row) for row in rows)]


def attention_line(row: Record) -> str:
    return joined(
        f"{row['num_queries']:,}, {row['family']}",
        f"`{row['backend']}` {row['dtype']}",
        f"{row['ms_median']:,.1f}",
        f"{row['tflops']:.2f}",
        f"{row['speedup']:.2f} x",
        f"{row['cosine']:.5f}",
        f"{row['relative_l1']:.4f}",
    )


def dit_table(rows: Sequence[Record]) -> list[str]:
    """One line for each model and precision: seconds of a forward, and how near to our fp32."""
    heading = ["| tokens | model, precision | s | signal to noise, dB |", "|--:|---|--:|--:|"]
    return heading + [
        joined(
            f"{row['num_tokens']:,}",
            f"{row['model']}, {row['precision']}",
            f"{row['median_s']:.2f}",
            f"{row['sqnr_db']:.1f}" if row["sqnr_db"] < float("inf") else "",
        )
        for row in rows
    ]


def vae_table(rows: Sequence[Record]) -> list[str]:
    """One line for each contender, precision and direction: seconds, memory, and how near to our fp32."""
    heading = ["| frames, size | model, precision | direction | s | peak, GB | signal to noise, dB |"]
    return [*heading, "|---|---|---|--:|--:|--:|", *(vae_line(row) for row in rows)]


def vae_line(row: Record) -> str:
    return joined(
        f"{row['num_frames']}, {row['width']} x {row['height']}",
        f"{row['model']}, {row['precision']}",
        row["direction"],
        f"{row['median_s']:.1f}",
        f"{row['peak_bytes'] / 1e9:.2f}",
        f"{row['sqnr_db']:.1f}" if row["sqnr_db"] is not None else "",
    )


def joined(*cells: str) -> str:
    return f"| {' | '.join(cells)} |"


TABLES: dict[str, Table] = {"ops": ops_table, "attention": attention_table, "dit": dit_table, "vae": vae_table}


def kind_of(record: Any) -> str:
    """Which of the tables a results file is for."""
    if isinstance(record, dict):
        return "vae" if "direction" in record["rows"][0] else "dit"
    return "attention" if record and "family" in record[0] else "ops"


def table(path: Path) -> tuple[str, str]:
    """The kind of a results file, and its table in Markdown."""
    record = json.loads(path.read_text())
    kind = kind_of(record)
    if isinstance(record, dict):
        rows, about = record["rows"], record["environment"]
    else:
        rows = [row for row in benchmark.load(path) if row["ms_median"] is not None]
        about = rows[0] | rows[0]["versions"]
    place = path.resolve().relative_to(README.parent)
    source = f"{about['device']}, {about['num_threads']} threads, torch {about['torch']}, commit"
    return kind, "\n".join((f"{source} {about['commit']} (`{place}`):\n", *TABLES[kind](rows)))


def updated(text: str, path: Path) -> str:
    """The README with the table of `path` between the marks of its kind."""
    kind, lines = table(path)
    begin, end = f"<!-- {kind}: benchmarks.readme_table -->", f"<!-- end of {kind} -->"
    before, mark, rest = text.partition(begin)
    _, close, after = rest.partition(end)
    if not (mark and close):
        raise ValueError(f"[readme] the README must hold {begin} and {end}, it does not")
    return f"{before}{begin}\n\n{lines}\n\n{end}{after}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("results", type=Path, nargs="+")
    text = README.read_text()
    for path in parser.parse_args().results:
        text = updated(text, path)
    README.write_text(text)


if __name__ == "__main__":
    main()
