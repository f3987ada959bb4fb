"""The cases of `wan bench ops` through pytest-benchmark: `pytest benchmarks --benchmark-only -k rms_norm`.

Its statistics, storage and comparison for those who live in them; backends are not interleaved here, so that figures
to be compared with each other come from `wan bench ops`.
"""

from typing import Any

import pytest
import torch

from wan_kernels import benchmark as harness
from wan_kernels import dispatch
from wan_kernels.benchmark import COMPILED, Subject
from wan_kernels.timing import FLUSH_BYTES

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
ROUNDS = 10


def rows() -> list[Any]:
    return [
        pytest.param(subject, backend, id=subject.row(backend).name)
        for subject in harness.subjects(device=DEVICE)
        for backend in (*dispatch.names(subject.op.name), COMPILED)
    ]


@pytest.mark.parametrize(("subject", "backend"), rows())
def test_speed(subject: Subject, backend: str, benchmark: Any) -> None:
    run = harness.prepare(subject, backend)
    if isinstance(run, str):
        # What is absent or refuses the call has no figure; what is wrong is a failure.
        assert "correctness gate is red" not in run, run
        pytest.skip(run)
    flush = torch.empty(FLUSH_BYTES[DEVICE], dtype=torch.uint8, device=DEVICE)

    def timed() -> None:
        run()
        if DEVICE == "cuda":
            torch.cuda.synchronize()

    def cold() -> None:
        flush.zero_()
        if DEVICE == "cuda":
            torch.cuda.synchronize()

    cost = subject.op.cost(*subject.case.args(harness.DTYPES[subject.dtype], "meta"))
    benchmark.extra_info |= {"num_bytes": cost.num_bytes, "flops": cost.flops}
    benchmark.pedantic(timed, setup=cold, rounds=ROUNDS, warmup_rounds=2)
