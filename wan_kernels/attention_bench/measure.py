"""Judges and times every contender on the same inputs: rows as `wan bench compare` and `report` read them."""

import statistics
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from math import isfinite
from typing import Any

import torch
from torch import Tensor

from wan_kernels.attention_bench.accuracy import Truth, errors_of, errors_of_read, verdict
from wan_kernels.attention_bench.contenders import Contender, contenders
from wan_kernels.attention_bench.inputs import Inputs, Load
from wan_kernels.benchmark import Row
from wan_kernels.common.cost import num_bytes
from wan_kernels.timing import interleaved_each

Run = Callable[[], object]


@dataclass(frozen=True)
class AttentionRow(Row):
    """A row of `attention` whose dtype is what is multiplied, and tflops 4 L S N H over the median.

    speedup: times as fast as the fastest of torch's. prepare_ms: the median of quantising q, k and v, None where there
    is nothing to do; prepare_share: of ms_median. cosine to rmse, and sqnr_db and error_max: against float64 on the
    inputs as given; cosine_read: against float64 on what was read, codes for 8 bits. lse_error and lse_error_read: the
    largest difference of log-sum-exps from these two, in e-folds. is_red: the gate refused it, for a `reason`, and
    there are no times.
    """

    family: str = ""
    num_queries: int = 0
    num_keys: int = 0
    num_heads: int = 0
    head_width: int = 0
    speedup: float | None = None
    prepare_ms: float | None = None
    prepare_share: float | None = None
    cosine: float | None = None
    cosine_read: float | None = None
    relative_l1: float | None = None
    rmse: float | None = None
    lse_error: float | None = None
    lse_error_read: float | None = None
    is_red: bool = False


@dataclass
class Entry:
    """A contender in one race. `prepared` is held for the timing; a reason keeps it out of that."""

    contender: Contender
    prepared: Any = None
    figures: dict[str, Any] = field(default_factory=dict)
    reason: str | None = None
    is_red: bool = False

    @property
    def key(self) -> str:
        return f"{self.contender.format}/{self.contender.name}"


def measure(
    loads: Iterable[Load],
    backends: Sequence[str] | None = None,
    *,
    device: str = "cpu",
    budget_s: float = 2.0,
    tell: Callable[[str], object] = lambda line: None,
) -> Iterator[AttentionRow]:
    """Rows of each input in turn. backends: names of contenders, or what stands before their dots; None for all.

    budget_s: seconds of timing for each contender, three runs at least. tell: hears what is being done.
    """
    for load in loads:
        yield from race(load(), backends, device=device, budget_s=budget_s, tell=tell)


@torch.no_grad()
def race(
    inputs: Inputs, backends: Sequence[str] | None, *, device: str, budget_s: float, tell: Callable[[str], object]
) -> list[AttentionRow]:
    """All contenders on one input: each judged by a call that also warms it up, then all timed in turn."""
    num_samples, num_queries, num_heads, head_width = inputs.q.shape
    num_logits = num_samples * num_heads * num_queries * inputs.k.shape[1]
    tell(f"{inputs.title}: the truth in float64")
    truth = Truth.of(inputs)
    entries = []
    for contender in contenders(backends, device, num_logits, head_width):
        if contender.refusal is None:
            tell(f"{inputs.title}: judging {contender.name} in {contender.format}")
        entries.append(judged(contender, inputs, truth))
    rivals = {entry.key: entry for entry in entries if entry.reason is None}
    tell(f"{inputs.title}: timing {', '.join(rivals) or 'nobody'}")
    runs: dict[str, Run] = {key: partial(entry.contender.run, entry.prepared) for key, entry in rivals.items()}
    times = interleaved_each(runs, device, budget_s)
    preparations: dict[str, Run] = {
        key: partial(entry.contender.prepare, inputs.q, inputs.k, inputs.v)
        for key, entry in rivals.items()
        if entry.contender.has_preparation
    }
    prepare_times = interleaved_each(preparations, device, min(budget_s, 0.5))
    rows = [_row(inputs, each, times.get(each.key), prepare_times.get(each.key)) for each in entries]
    return with_speedups(rows)


def judged(contender: Contender, inputs: Inputs, truth: Truth) -> Entry:
    entry = Entry(contender, reason=contender.refusal)
    if entry.reason is not None:
        return entry
    try:
        entry.prepared = contender.prepare(inputs.q, inputs.k, inputs.v)
        out, lse = contender.run(entry.prepared)
    except RuntimeError as error:
        # Torch's kernels say so when they have none for a call; ours must not get this far.
        entry.reason, entry.is_red = f"raised {type(error).__name__}: {first_line(error)}", contender.is_ours
        return entry
    entry.figures = errors_of(out, truth)
    read = contender.read(entry.prepared, truth.part)
    if read is not None:
        entry.figures |= errors_of_read(out, lse, read, truth)
    reason = verdict(entry.figures, inputs.family, spans_tokens=contender.spans_tokens)
    if reason is not None:
        entry.reason, entry.is_red = f"correctness gate is red: {reason}", True
        # JSON has no NaN.
        entry.figures = {name: value for name, value in entry.figures.items() if value is None or isfinite(value)}
        entry.prepared = None
        return entry
    entry.figures["num_bytes"] = num_bytes(*tensors_of(entry.prepared), out, lse)
    return entry


def first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [""])[0]


def tensors_of(tree: Any) -> list[Tensor]:
    return [tree] if isinstance(tree, Tensor) else [leaf for branch in tree for leaf in tensors_of(branch)]


def _row(inputs: Inputs, entry: Entry, times: list[float] | None, prepare_times: list[float] | None) -> AttentionRow:
    contender = entry.contender
    num_queries, num_heads, head_width = inputs.q.shape[1:]
    return AttentionRow(
        name=f"attention/{inputs.title}/{contender.format}/fwd/{contender.name}",
        op="attention",
        case=inputs.title,
        dtype=contender.format,
        direction="fwd",
        backend=contender.name,
        family=inputs.family,
        num_queries=num_queries,
        num_keys=inputs.k.shape[1],
        num_heads=num_heads,
        head_width=head_width,
        flops=inputs.flops,
        reason=entry.reason,
        is_red=entry.is_red,
        **entry.figures,
        **(_speed(inputs, times, prepare_times, entry.figures["num_bytes"]) if times else {}),
    )


def _speed(inputs: Inputs, times: list[float], prepare_times: list[float] | None, moved: int) -> dict[str, Any]:
    median = statistics.median(times)
    tenths = statistics.quantiles(times, n=10, method="inclusive")
    prepare = statistics.median(prepare_times) if prepare_times else None
    return {
        "num_runs": len(times),
        "ms_median": median * 1e3,
        "ms_p10": tenths[0] * 1e3,
        "ms_p90": tenths[-1] * 1e3,
        "gbps": moved / median / 1e9,
        "tflops": inputs.flops / median / 1e12,
        "prepare_ms": None if prepare is None else prepare * 1e3,
        "prepare_share": None if prepare is None else prepare / median,
    }


def with_speedups(rows: list[AttentionRow]) -> list[AttentionRow]:
    """Times as fast as the fastest of torch's that was timed."""
    best = min((row.ms_median for row in rows if row.ms_median and row.backend.startswith("torch.")), default=None)
    return [replace(row, speedup=best / row.ms_median) if best and row.ms_median else row for row in rows]


# Heading, field, width, how it is printed, and by what it is multiplied.
COLUMNS: tuple[tuple[str, str, int, str, float], ...] = (
    ("median ms", "ms_median", 11, ".3f", 1),
    ("p10", "ms_p10", 10, ".3f", 1),
    ("p90", "ms_p90", 10, ".3f", 1),
    ("TOPS", "tflops", 9, ".3f", 1),
    ("x SDPA", "speedup", 8, ".2f", 1),
    ("prep %", "prepare_share", 8, ".1f", 100),
    ("cosine", "cosine", 10, ".6f", 1),
    ("cos read", "cosine_read", 10, ".6f", 1),
    ("rel L1", "relative_l1", 9, ".1e", 1),
    ("RMSE", "rmse", 9, ".1e", 1),
    ("SQNR dB", "sqnr_db", 9, ".1f", 1),
    ("max err", "error_max", 9, ".1e", 1),
    ("lse err", "lse_error", 9, ".1e", 1),
    ("lse read", "lse_error_read", 9, ".1e", 1),
)


def table(rows: Sequence[AttentionRow]) -> str:
    """Rows for people: a block for each input, red rows marked, a reason where there is no time."""
    width = max([24, *(len(row.backend) + len(row.dtype) + 4 for row in rows)])
    heading = "".join(f"{name:>{columns}}" for name, _, columns, _, _ in COLUMNS)
    lines: list[str] = []
    for index, row in enumerate(rows):
        if index == 0 or row.case != rows[index - 1].case:
            lines += ["", row.case, f"{'':<{width}}{heading}"]
        lines.append(f"  {row.backend + ' ' + row.dtype:<{width - 2}}{_cells(row)}".rstrip())
    return "\n".join(lines).lstrip("\n")


def _cells(row: AttentionRow) -> str:
    if row.ms_median is None:
        return f"  {'RED  ' * row.is_red}{row.reason}"
    values = ((getattr(row, name), columns, style, factor) for _, name, columns, style, factor in COLUMNS)
    return "".join(
        " " * columns if value is None else f"{value * factor:>{columns}{style}}"
        for value, columns, style, factor in values
    )
