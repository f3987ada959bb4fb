"""`wan kernels inspect`: what the GPU kernels compile to."""

import json
from collections.abc import Sequence
from pathlib import Path

from wan_kernels import inspect
from wan_kernels.inspect import Row
from wan_model.tables import print_table

NUMBERS = ("registers", "spills", "shared KiB", "warps", "per SM", "serialised", "bound us")
COLUMNS = ("op", "case", "kernel", *NUMBERS, "instructions", "ok")


def run(ops: list[str] | None, json_path: Path | None, baseline_path: Path | None) -> bool:
    """Print the table; whether every kernel is what it should be. The baseline is read before anything is compiled."""
    baseline = None if baseline_path is None else inspect.load(baseline_path)
    rows, skipped = inspect.inspect(ops)
    if json_path is not None:
        json_path.write_text(json.dumps(inspect.report(rows, skipped), indent=1) + "\n")
    print_rows(rows)
    for line in skipped:
        print(f"not inspected: {line}")
    if baseline is not None:
        lines = inspect.differences(rows, baseline)
        print("\n".join(lines) or "nothing differs from the baseline")
    return all(row.ok for row in rows)


def print_rows(rows: Sequence[Row]) -> None:
    cells = [
        (
            row.op,
            row.case,
            row.kernel,
            row.registers,
            row.spill_bytes,
            f"{row.shared_bytes / 1024:.1f}",
            row.warps,
            row.ctas_per_sm,
            row.serialised,
            "" if row.bound_us is None else f"{row.bound_us:.0f}",
            " ".join(f"{name}:{count}" for name, count in row.mnemonics.items() if count),
            "yes" if row.ok else f"no: {row.reason}",
        )
        for row in rows
    ]
    print_table("Kernels as compiled for sm_90a", COLUMNS, cells, right=NUMBERS)
