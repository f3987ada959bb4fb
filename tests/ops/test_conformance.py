"""Every op x backend x case x dtype, forward and backward, against the reference in float64."""

from typing import Any

import pytest
import torch
from torch._dynamo.testing import CompileCounterWithBackend
from torch.library import opcheck

import wan_kernels  # noqa: F401  (fills the registry)
from wan_kernels import dispatch, testing
from wan_kernels.common.case import Case
from wan_kernels.define_op import OPS

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
EVERY = [(op, case) for op in sorted(OPS) for case in testing.cases_of(op) if not case.is_heavy]


def pairs() -> list[Any]:
    return [
        pytest.param(op, case, backend, id=f"{op}-{case.name}-{backend}")
        for op, case in EVERY
        for backend in dispatch.names(op)
    ]


def skip_unless_it_runs(op: str, backend: str, args: tuple[Any, ...]) -> None:
    candidate = dispatch.get(op, backend)
    if candidate.unavailable is not None:
        assert backend not in dispatch.required(), f"{op}/{backend} is required here, but {candidate.unavailable}"
        pytest.skip(candidate.unavailable)
    if (reason := candidate.reject(*args)) is not None:
        pytest.skip(f"{op}/{backend} {reason}")


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("op", "case", "backend"), pairs())
def test_conforms(op: str, case: Case, backend: str, dtype: str, device: str, note_ran: Any) -> None:
    skip_unless_it_runs(op, backend, case.args(DTYPES[dtype], device))
    testing.check(op, backend, case, DTYPES[dtype], device)
    note_ran(op, backend)


@pytest.mark.parametrize(("op", "case"), [pytest.param(op, case, id=f"{op}-{case.name}") for op, case in EVERY])
def test_same_inputs_each_time(op: str, case: Case) -> None:
    for first, second in zip(case.args(torch.float32), case.args(torch.float32), strict=True):
        if isinstance(first, torch.Tensor):
            torch.testing.assert_close(first, second, rtol=0, atol=0, equal_nan=True)
        else:
            assert first == second


@pytest.mark.parametrize("op", sorted(OPS))
def test_costs_are_known_without_memory(op: str) -> None:
    for case in testing.cases_of(op):
        args = case.args(torch.bfloat16, "meta")
        cost = OPS[op].cost(*args)
        is_empty = args[0].numel() == 0
        assert (cost.flops > 0) != is_empty
        assert cost.num_bytes > 0 or is_empty


@pytest.mark.parametrize("backend", dispatch.required() or ["reference"])
def test_required_backend_is_here(backend: str) -> None:
    assert [line for line in dispatch.missing_required() if line.split(":")[0].endswith(backend)] == []


def chosen_cases(op: str) -> list[Case]:
    """A plain case, one with optional tensors, one with layouts: opcheck runs each four ways."""
    small = [case for case in testing.cases_of(op) if not case.is_heavy]
    return [small[1], *(case for case in small if "strided" in case.name or "channels_last" in case.name)][:2]


@pytest.mark.parametrize(
    ("op", "case"),
    [pytest.param(op, case, id=f"{op}-{case.name}") for op in sorted(OPS) for case in chosen_cases(op)],
)
def test_opcheck(op: str, case: Case, device: str) -> None:
    args = list(case.args(torch.float32, device))
    for slot, is_differentiable in zip(OPS[op].tensor_slots, OPS[op].differentiable, strict=True):
        if args[slot] is not None and is_differentiable and args[slot].is_floating_point():
            args[slot] = args[slot].detach().requires_grad_()
    opcheck(OPS[op].overload, tuple(args))


@pytest.mark.parametrize("op", sorted(OPS))
def test_compiles_whole(op: str, device: str) -> None:
    """One graph, no breaks, eager's outputs and gradients; another backend needs no recompilation."""
    case = next(case for case in testing.cases_of(op) if not case.is_heavy)
    args = case.args(torch.float32, device)
    cotangents = testing.cotangents_for(OPS[op], args)
    torch.compiler.reset()
    graphs = CompileCounterWithBackend("aot_eager")
    compiled = torch.compile(lambda *args: OPS[op](*args), fullgraph=True, backend=graphs)
    for backend in dispatch.names(op):
        if dispatch.get(op, backend).unavailable or dispatch.get(op, backend).reject(*args):
            continue
        with dispatch.use_backend(**{op: backend}):
            eager = testing.outcome(OPS[op], OPS[op], args, cotangents)
            graph = testing.outcome(OPS[op], compiled, args, cotangents)
        for part in ("outputs", "gradients"):
            for name, wanted in getattr(eager, part).items():
                torch.testing.assert_close(getattr(graph, part)[name], wanted)
    assert graphs.frame_count == 1
