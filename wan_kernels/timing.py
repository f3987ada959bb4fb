"""Timing calls side by side: in turn, caches flushed before each."""

import time
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

FLUSH_BYTES = {"cpu": 2**26, "cuda": 2**28}
MIN_ROUNDS, MAX_ROUNDS = 5, 200
LEAST_RUNS = 3  # of calls with a budget of their own


def interleaved(runs: dict[str, Callable[[], object]], device: str, budget_s: float) -> dict[str, list[float]]:
    """Seconds of each call: one of each in turn, caches flushed before every one, until the budget is spent."""
    time_once = _timer(device)
    for run in runs.values():
        warm_until = time.perf_counter() + (0.3 if device.startswith("cuda") else 0.05)
        while time.perf_counter() < warm_until:
            time_once(run)
    times: dict[str, list[float]] = {name: [] for name in runs}
    start = time.perf_counter()
    for num_done in range(MAX_ROUNDS):
        if num_done >= MIN_ROUNDS and time.perf_counter() - start > budget_s:
            break
        for name, run in runs.items():
            times[name].append(time_once(run))
    return times


def interleaved_each(runs: dict[str, Callable[[], object]], device: str, budget_s: float) -> dict[str, list[float]]:
    """As `interleaved`, with a budget for each: for calls that differ a hundredfold, or take minutes.

    Each runs at least three times and drops out when it has spent its budget. A GPU warms up on each for a tenth of
    it; on a CPU the calls must have run before, since one more to warm up may be as long as the measuring.
    """
    time_once = _timer(device)
    for run in runs.values() if device.startswith("cuda") else ():
        warm_until = time.perf_counter() + min(0.3, budget_s / 10)
        while time.perf_counter() < warm_until:
            time_once(run)
    times: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(MAX_ROUNDS):
        left = [name for name in runs if len(times[name]) < LEAST_RUNS or sum(times[name]) < budget_s]
        if not left:
            break
        for name in left:
            times[name].append(time_once(runs[name]))
    return times


def _timer(device: str) -> Callable[[Callable[[], object]], float]:
    is_cuda = device.startswith("cuda")
    flush = torch.empty(FLUSH_BYTES["cuda" if is_cuda else "cpu"], dtype=torch.uint8, device=device)
    return partial(_time_on_gpu if is_cuda else _time_on_cpu, flush)


def _time_on_cpu(flush: Tensor, run: Callable[[], object]) -> float:
    flush.add_(1)
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def _time_on_gpu(flush: Tensor, run: Callable[[], object]) -> float:
    start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    flush.zero_()
    start.record()
    run()
    end.record()
    end.synchronize()
    return start.elapsed_time(end) / 1000


def in_range(name: str, call: Callable[[], object]) -> object:
    """The call inside an NVTX range: profilers show rows by their names."""
    with torch.cuda.nvtx.range(name):
        return call()
