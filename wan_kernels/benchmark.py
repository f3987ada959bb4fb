"""Times ops: backends interleaved on the same inputs, caches flushed between calls, medians with p10 and p90.

Rows are named `<op>/<case>/<dtype>/<direction>/<backend>`. Beside the backends stand two anchors: `compiled`, which is
torch.compile of the reference, and `clone`, a plain copy that moves as many bytes as the op must. A backend whose
correctness gate (conformance on the op's small cases) is red gets no figure.
"""

import json
import os
import statistics
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from wan_kernels import dispatch, machine, testing
from wan_kernels.accuracy import errors_of
from wan_kernels.common.case import Case
from wan_kernels.common.cost import Cost, num_bytes
from wan_kernels.common.quantize import LIMITS
from wan_kernels.define_op import OPS, Op
from wan_kernels.timing import in_range, interleaved

Direction = Literal["fwd", "bwd"]
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}
DIRECTIONS: tuple[Direction, ...] = ("fwd", "bwd")
COMPILED, CLONE = "compiled", "clone"
ANCHORS = (COMPILED, CLONE)

# What a CPU does in about a second, and one GPU's memory holds with gradients.
MAX_COST = {"cpu": Cost(flops=11 * 10**10, num_bytes=2**28), "cuda": Cost(flops=10**16, num_bytes=2**35)}


@dataclass(frozen=True)
class Row:
    """One figure, or the reason there is none.

    gbps, tflops: 1e9 bytes and 1e12 FLOPs per second. bound: which side of the device's roofline binds, bound_fraction:
    how near the call comes to it. On a CPU, whose peaks nobody states, memory binds and the copy of the same run is the
    bound of ops that do little arithmetic. error_max and sqnr_db: against the reference, codes by their values.
    """

    name: str
    op: str
    case: str
    dtype: str
    direction: Direction
    backend: str
    num_runs: int = 0
    ms_median: float | None = None
    ms_p10: float | None = None
    ms_p90: float | None = None
    num_bytes: int = 0
    flops: int | None = None
    gbps: float | None = None
    tflops: float | None = None
    bound: Literal["memory", "compute"] | None = None
    bound_fraction: float | None = None
    error_max: float | None = None
    sqnr_db: float | None = None
    reason: str | None = None


@dataclass(frozen=True)
class Subject:
    """What one group of rows measures."""

    op: Op
    case: Case
    dtype: str
    direction: Direction
    device: str

    def row(self, backend: str, **figures: Any) -> Row:
        parts = (self.op.name, self.case.name, self.dtype, self.direction, backend)
        return Row("/".join(parts), *parts, **figures)


def measure(
    ops: Sequence[str] | None = None,
    backends: Sequence[str] | None = None,
    *,
    cases: Sequence[str] | None = None,
    dtypes: Sequence[str] = tuple(DTYPES),
    directions: Sequence[Direction] = DIRECTIONS,
    device: str = "cpu",
    budget_s: float = 2.0,
) -> Iterator[Row]:
    """Rows as they are measured. None means all: ops, backends (anchors too), the real shapes this device affords.

    backends: names of any op, `compiled` and `clone`; `clone` always joins, and ops that have none but the reference of
    them are left out unless named. budget_s: seconds for one group of rows, warm-up not counted. Raises ValueError for
    a name that does not exist.
    """
    _check_names(ops, backends, cases, dtypes, directions)
    names = ops or _ops_with(backends)
    for subject in subjects(names, cases=cases, dtypes=dtypes, directions=directions, device=device):
        yield from _measure_group(subject, backends, budget_s)


def subjects(
    ops: Sequence[str] | None = None,
    *,
    cases: Sequence[str] | None = None,
    dtypes: Sequence[str] = tuple(DTYPES),
    directions: Sequence[Direction] = DIRECTIONS,
    device: str = "cpu",
) -> Iterator[Subject]:
    """What `measure` measures, without measuring: an op, a case, a dtype and a direction each."""
    for name in ops or sorted(OPS):
        for case in chosen_cases(name, cases, device):
            for dtype in dtypes:
                for direction in directions:
                    yield Subject(OPS[name], case, dtype, direction, device)


def prepare(subject: Subject, backend: str) -> Callable[[], object] | str:
    """A call that does the subject's work once on `backend`, warmed up, or the reason why it has no figure."""
    args = subject.case.args(DTYPES[subject.dtype], subject.device)
    return _refusal(subject, backend, args) or _prepared(subject, backend, args)


def run_once(op: str, backend: str, case: str, dtype: str, direction: Direction, device: str) -> str:
    """One call between the profiler's start and stop, after one that warms up; returns its row's name.

    For `ncu --profile-from-start off` and its like: what the profiler sees is exactly this call's kernels, inside an
    NVTX range of the row's name. Raises ValueError for an unknown name or a backend that does not run.
    """
    _check_names([op], [backend], [case], [dtype], [direction])
    [subject] = subjects([op], cases=[case], dtypes=[dtype], directions=[direction], device=device)
    run = prepare(subject, backend)
    if isinstance(run, str):
        raise ValueError(f"[benchmark] {subject.row(backend).name} must run, but {run}")
    torch.cuda.synchronize(device)
    torch.cuda.profiler.start()
    run()
    torch.cuda.synchronize(device)
    torch.cuda.profiler.stop()
    return subject.row(backend).name


def _ops_with(backends: Sequence[str] | None) -> list[str]:
    rivals = set(backends or ()) - {dispatch.REFERENCE, CLONE}
    return [op for op in sorted(OPS) if not rivals or COMPILED in rivals or rivals & set(dispatch.names(op))]


def chosen_cases(op: str, names: Sequence[str] | None, device: str) -> list[Case]:
    """The named cases, or the real shapes that the device affords."""
    if names is not None:
        return [case for case in testing.cases_of(op) if case.name in names]
    limit = MAX_COST[device.partition(":")[0]]

    def is_affordable(case: Case) -> bool:
        cost = OPS[op].cost(*case.args(torch.float32, "meta"))
        return cost.flops <= limit.flops and cost.num_bytes <= limit.num_bytes

    return [case for case in testing.cases_of(op) if case.is_heavy and is_affordable(case)]


def save(rows: Sequence[Row], path: Path, device: str = "cpu") -> None:
    """Write rows as a JSON list, each with where it was measured; whole or not at all."""
    where = machine.stamp(device)
    write_json(path, [asdict(row) | where for row in rows])


def load(path: Path) -> list[dict[str, Any]]:
    """The rows of a benchmark file, or of a hardware record. Raises ValueError where it is neither, in one line."""
    try:
        content = json.loads(path.read_text())
        rows = content if isinstance(content, list) else content["rows"]
        if not all({"name", "backend", "ms_median", "device"} <= row.keys() for row in rows):
            raise KeyError("ms_median")
    except (json.JSONDecodeError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"[bench] {path} must hold rows of `wan bench ops --json`, it does not: {error!r}") from None
    return rows


def write_json(path: Path, value: Any) -> None:
    """Write beside the target, then rename."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        temporary.write_text(json.dumps(value, indent=1) + "\n")
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def table(rows: Sequence[Row]) -> str:
    """Rows for people: one line each, groups apart, times the group's `clone` in the last column."""
    width = max([64, *(len(row.name) + 1 for row in rows)])
    heading = f"{'median ms':>11}{'p10':>10}{'p90':>10}{'GB/s':>8}{'TFLOP/s':>9}{'% bound':>9}{'x clone':>9}"
    lines = [" " * width + heading]
    clones = {row.name.rpartition("/")[0]: row.ms_median for row in rows if row.backend == CLONE}
    group = None
    for row in rows:
        if group not in (None, row.name.rpartition("/")[0]):
            lines.append("")
        group = row.name.rpartition("/")[0]
        lines.append(f"{row.name:<{width}}" + _figures(row, clones.get(group)))
    return "\n".join(lines)


def _figures(row: Row, clone_ms: float | None) -> str:
    if row.ms_median is None:
        return f"  {row.reason}"
    columns: list[tuple[float | None, int, int]] = [
        (row.ms_median, 11, 4),
        (row.ms_p10, 10, 4),
        (row.ms_p90, 10, 4),
        (row.gbps, 8, 1),
        (row.tflops, 9, 3),
        (None if row.bound_fraction is None else 100 * row.bound_fraction, 9, 1),
        (row.ms_median / clone_ms if clone_ms else None, 9, 2),
    ]
    return "".join(" " * width if value is None else f"{value:>{width}.{digits}f}" for value, width, digits in columns)


def _check_names(ops: Any, backends: Any, cases: Any, dtypes: Any, directions: Any) -> None:
    known_backends = {*ANCHORS, *(name for op in OPS for name in dispatch.names(op))}
    known_cases = {case.name for op in ops or OPS if op in OPS for case in testing.cases_of(op)}
    for what, given, known in (
        ("op", ops, set(OPS)),
        ("backend", backends, known_backends),
        ("case", cases, known_cases),
        ("dtype", dtypes, set(DTYPES)),
        ("direction", directions, set(DIRECTIONS)),
    ):
        for name in given or ():
            if name not in known:
                raise ValueError(f"[benchmark] {what} must be one of {', '.join(sorted(known))}, got {name!r}")


def _measure_group(subject: Subject, backends: Sequence[str] | None, budget_s: float) -> Iterator[Row]:
    args = subject.case.args(DTYPES[subject.dtype], subject.device)
    cost = _cost(subject, args)
    wanted = [*dispatch.names(subject.op.name), COMPILED] if backends is None else list(backends)
    runs: dict[str, Callable[[], object]] = {}
    for backend in [name for name in wanted if name != CLONE]:
        reason = _refusal(subject, backend, args)
        if reason is None:
            runs[backend] = _prepared(subject, backend, args)
        elif backend in (*dispatch.names(subject.op.name), COMPILED):
            yield subject.row(backend, reason=reason)
    if not runs:
        return
    copied = torch.empty(max(cost.num_bytes // 2, 1), dtype=torch.uint8, device=subject.device).fill_(1)
    runs[CLONE] = copied.clone
    errors = errors_of(subject.op, list(runs), args) if subject.direction == "fwd" else {}
    found = interleaved(runs, subject.device, budget_s)
    roof_s = statistics.median(found[CLONE])
    for backend, times in found.items():
        yield subject.row(backend, **_summary(subject, backend, times, cost, roof_s), **errors.get(backend, {}))


def _refusal(subject: Subject, backend: str, args: tuple[Any, ...]) -> str | None:
    """Why this backend gets no figure: absent, refuses the call, or its gate is red."""
    name = subject.op.name
    if backend == COMPILED:
        return None
    if backend not in dispatch.names(name):
        return "not written for this op"
    candidate = dispatch.get(name, backend)
    if subject.direction == "bwd" and candidate.backward is None:
        return "has no backward"
    return candidate.unavailable or candidate.reject(*args) or gate(name, backend, subject.dtype, subject.device)


@cache
def gate(op: str, backend: str, dtype: str, device: str) -> str | None:
    """None if the backend conforms on every small case of the op, else the first failure."""
    for case in testing.cases_of(op):
        if case.is_heavy or dispatch.get(op, backend).reject(*case.args(DTYPES[dtype], device)) is not None:
            continue
        try:
            testing.check(op, backend, case, DTYPES[dtype], device)
        except AssertionError as error:
            return f"correctness gate is red: {error}"
    return None


def _prepared(subject: Subject, backend: str, args: tuple[Any, ...]) -> Callable[[], object]:
    """A call without arguments that does the work once, on its backend."""
    op = subject.op
    if backend == COMPILED:
        # The cache would otherwise fill up after eight shapes and fall back to eager.
        torch.compiler.reset()
        function = torch.compile(op.reference.forward)
    else:
        function = op
    run = partial(function, *args) if subject.direction == "fwd" else _backward_run(op, function, args, backend)

    force = {} if backend == COMPILED else {op.name: backend}

    def call() -> object:
        with dispatch.use_backend(**force):
            return run()

    call()
    return call if subject.device == "cpu" else partial(in_range, subject.row(backend).name, call)


def _backward_run(op: Op, function: Any, args: tuple[Any, ...], backend: str) -> Callable[[], object]:
    args = tuple(value.detach() if isinstance(value, Tensor) else value for value in args)
    sources = [args[slot].requires_grad_() for slot in differentiable_slots(op, args)]
    force = {} if backend == COMPILED else {op.name: backend}
    with dispatch.use_backend(**force):
        outputs = function(*args)
    first = outputs[0] if isinstance(outputs, tuple) else outputs
    grad = torch.randn_like(first)
    return lambda: torch.autograd.grad(first, sources, grad, retain_graph=True)


def differentiable_slots(op: Op, args: Sequence[Any]) -> list[int]:
    """Where the arguments are that get a gradient."""
    return [
        slot
        for slot, is_differentiable in zip(op.tensor_slots, op.differentiable, strict=True)
        if is_differentiable and args[slot] is not None and args[slot].is_floating_point()
    ]


def _cost(subject: Subject, args: tuple[Any, ...]) -> Cost:
    """Backward: what forward moves (the output's gradient for the output) and the inputs' gradients."""
    cost = subject.op.cost(*args)
    if subject.direction == "fwd":
        return cost
    gradients = [args[slot] for slot in differentiable_slots(subject.op, args)]
    flops = int(cost.flops * getattr(subject.op.reference, "BACKWARD_FLOPS_RATIO", 2))
    return Cost(flops, cost.num_bytes + num_bytes(*gradients))


def _summary(subject: Subject, backend: str, times: list[float], cost: Cost, roof_s: float) -> dict[str, Any]:
    median = statistics.median(times)
    tenths = statistics.quantiles(times, n=10, method="inclusive")
    flops = None if backend == CLONE else cost.flops
    bound, fraction = _share_of_bound(subject, median, Cost(flops or 0, cost.num_bytes), roof_s)
    return {
        "num_runs": len(times),
        "ms_median": median * 1e3,
        "ms_p10": tenths[0] * 1e3,
        "ms_p90": tenths[-1] * 1e3,
        "num_bytes": cost.num_bytes,
        "flops": flops,
        "gbps": cost.num_bytes / median / 1e9,
        "tflops": None if flops is None else flops / median / 1e12,
        "bound": bound,
        "bound_fraction": fraction,
    }


# Below so many FLOPs per byte an op on a CPU waits for memory: a core does some 10 per byte it can load.
CPU_MEMORY_INTENSITY = 10


def _share_of_bound(subject: Subject, seconds: float, cost: Cost, roof_s: float) -> tuple[str | None, float | None]:
    """Which side of the roofline binds, and the share of it reached."""
    peak = machine.peak_of(subject.device)
    if peak is None:
        is_light = cost.flops < CPU_MEMORY_INTENSITY * cost.num_bytes
        return ("memory", roof_s / seconds) if is_light else ("compute", None)
    by_memory = cost.num_bytes / peak.bytes_per_s
    by_compute = cost.flops / peak.flops_per_s[_product_dtype(subject)]
    return "memory" if by_memory > by_compute else "compute", max(by_memory, by_compute) / seconds


def _product_dtype(subject: Subject) -> torch.dtype:
    """What the matrix units multiply: 8-bit codes where the first argument is such."""
    first = subject.case.args(DTYPES[subject.dtype], "meta")[0]
    return first.dtype if first.dtype in LIMITS else DTYPES[subject.dtype]
