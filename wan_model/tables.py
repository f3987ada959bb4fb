"""Tables for people: drawn by rich on a terminal, plain aligned text in a pipe, so that grep and diff work."""

import sys
from collections.abc import Sequence


def print_table(
    title: str, columns: Sequence[str], rows: Sequence[Sequence[object]], *, right: Sequence[str] = ()
) -> None:
    """Prints `rows` under `columns`; those named in `right` are aligned to the right."""
    cells = [[str(cell) for cell in row] for row in rows]
    if sys.stdout.isatty():
        _print_rich(title, columns, cells, right)
    else:
        _print_plain(title, columns, cells, right)


def _print_rich(title: str, columns: Sequence[str], cells: list[list[str]], right: Sequence[str]) -> None:
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    table = Table(title=escape(title), box=SIMPLE_HEAD, title_justify="left", title_style="bold", pad_edge=False)
    for column in columns:
        table.add_column(column, justify="right" if column in right else "left", overflow="fold")
    for row in cells:
        table.add_row(*map(escape, row))
    Console().print(table)


def _print_plain(title: str, columns: Sequence[str], cells: list[list[str]], right: Sequence[str]) -> None:
    lines = [list(columns), *cells]
    widths = [max(len(line[i]) for line in lines) for i in range(len(columns))]
    print(title)
    for line in lines:
        aligned = (
            cell.rjust(width) if column in right else cell.ljust(width)
            for cell, width, column in zip(line, widths, columns, strict=True)
        )
        print("  " + "  ".join(aligned).rstrip())
    print()


def si(value: float, unit: str) -> str:
    """`6.52 PFLOP`, `75.6 GB`: three significant digits with a decimal prefix."""
    for prefix, size in (("P", 1e15), ("T", 1e12), ("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if value >= size:
            digits = ".3g" if value < 999.5 * size else ".0f"
            return f"{value / size:{digits}} {prefix}{unit}"
    return f"{value:.0f} {unit}"
