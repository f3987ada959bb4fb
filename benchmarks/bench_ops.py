"""Measure ops: `python -m benchmarks.bench_ops rms_norm attention --backend cpu,reference --json FILE`."""

import argparse
import sys
from pathlib import Path

import torch

import wan_kernels  # noqa: F401  (fills the registry)
from wan_kernels import benchmark


def names(text: str) -> list[str]:
    return [name.strip() for name in text.split(",") if name.strip()]


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("ops", nargs="*", help="all where none is given")
    parser.add_argument("--backend", type=names, help="backends, and the anchor `compiled`; all where not given")
    parser.add_argument("--case", type=names, help="cases by name; the real shapes the device affords otherwise")
    parser.add_argument("--dtype", type=names, default=list(benchmark.DTYPES))
    parser.add_argument("--direction", type=names, default=list(benchmark.DIRECTIONS))
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--budget", type=float, default=2.0, help="seconds for each group of rows")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write rows and environment here")
    return parser.parse_args()


def main() -> int:
    options = arguments()
    rows = []
    try:
        for row in benchmark.measure(
            options.ops or None,
            options.backend,
            cases=options.case,
            dtypes=options.dtype,
            directions=options.direction,
            device=options.device,
            budget_s=options.budget,
        ):
            rows.append(row)
            if sys.stderr.isatty():
                print(f"\r{len(rows)} rows, last {row.name:<80}", end="", file=sys.stderr)
    except ValueError as error:
        print(error, file=sys.stderr)
        return 2
    print()
    print(benchmark.table(rows))
    if options.json is not None:
        benchmark.save(rows, options.json, options.device)
        print(f"wrote {options.json}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
