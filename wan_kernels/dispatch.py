"""Which backend runs a call: register, select, force. Knows no op by name.

Order of registration is order of preference; `reference` is always last. A backend refuses a machine once
(`available`, cached) and a call each time (`reject`), with a reason both times. `use_backend` or WAN_KERNELS_BACKEND
forces a choice for the whole process (autograd runs backwards in its own threads, so a thread-local choice would not
reach them); a forced backend that cannot run raises. WAN_KERNELS_REQUIRE names the backends a test run must have.

`select` costs 0.4 us, the backend's own `reject` included (rms_norm on cpu; shared x86 host, best of 15 x 2000 calls).
"""

import inspect
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch._subclasses import FakeTensorMode

REFERENCE = "reference"
EVERY_OP = "*"


@dataclass(frozen=True)
class Backend:
    """One way to compute one op."""

    op: str
    name: str
    forward: Callable[..., Any]
    backward: Callable[..., tuple[Any, ...]] | None
    available: Callable[[], str | None]
    reject: Callable[..., str | None]
    unproven: Callable[[], str | None]

    @cached_property
    def unavailable(self) -> str | None:
        """Why this machine cannot run it, or None. Asked once: a probe that imports costs 50 us each time."""
        return self.available()

    @cached_property
    def experimental(self) -> str | None:
        """Why it is never chosen unless forced, or None. Asked once."""
        return self.unproven()

    @cached_property
    def takes_needed(self) -> bool:
        """Whether backward wants to know which gradients are asked for: its fourth argument."""
        return self.backward is not None and len(inspect.signature(self.backward).parameters) == 4


@dataclass(frozen=True)
class Explanation:
    """Who would run a call, and why those preferred to it would not."""

    op: str
    backend: str | None
    refused: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Standing:
    """One op on one backend on this machine; `reason` says why it is a hole, None that it can run."""

    op: str
    backend: str
    reason: str | None


_backends: dict[str, list[Backend]] = {}
_parameters: dict[str, tuple[str, ...]] = {}
# What select walks through: op -> the backends that may run here and now, forward and backward.
_candidates: dict[str, tuple[Backend, ...]] = {}
_backward_candidates: dict[str, tuple[Backend, ...]] = {}


def parse_forced(text: str) -> dict[str, str]:
    """WAN_KERNELS_BACKEND: `cpu` for every op that has it, or `rms_norm=cpu,attention=reference`."""
    choices = {}
    for entry in filter(str.strip, text.split(",")):
        op, _, name = entry.rpartition("=")
        choices[op.strip() or EVERY_OP] = name.strip()
    return choices


_forced: dict[str, str] = parse_forced(os.environ.get("WAN_KERNELS_BACKEND", ""))


def register_backend(
    op: str,
    name: str,
    *,
    forward: Callable[..., Any],
    backward: Callable[..., tuple[Any, ...]] | None = None,
    available: Callable[[], str | None] = lambda: None,
    reject: Callable[..., str | None] = lambda *args: None,
    unproven: Callable[[], str | None] = lambda: None,
) -> None:
    """Add a backend to an op, after those already there and before the reference.

    forward(*args): the op's arguments, positional, in schema order. backward(grads, inputs, outputs[, needed]): one
    gradient per tensor argument, None where there is none; without one the op's backward goes to the next backend that
    has one. available(): why this machine cannot run it. reject(*args): why this call cannot; it must not read tensor
    data, so that it also answers for fake tensors. unproven(): why it is experimental, to be run only when forced.

    Raises ValueError if the name is taken, TypeError if forward does not take the op's arguments.
    """
    backend = Backend(op, name, forward, backward, available, reject, unproven)
    others = _backends.setdefault(op, [])
    if name in names(op):
        raise ValueError(f"[{op}] a backend's name must be new, got {name!r}; there are {', '.join(names(op))}")
    if op in _parameters:
        _check_signature(backend, _parameters[op])
    before_reference = bool(others) and others[-1].name == REFERENCE and name != REFERENCE
    others.insert(len(others) - before_reference, backend)
    _forget_candidates()


def set_parameters(op: str, parameters: tuple[str, ...]) -> None:
    """State the op's argument names; every backend, registered before or after, is held to them."""
    _parameters[op] = parameters
    for backend in _backends.get(op, ()):
        _check_signature(backend, parameters)


def _check_signature(backend: Backend, parameters: tuple[str, ...]) -> None:
    found = inspect.signature(backend.forward).parameters.values()
    if any(each.kind is each.VAR_POSITIONAL for each in found):
        return
    if (got := tuple(each.name for each in found)) != parameters:
        raise TypeError(f"[{backend.op}] {backend.name}.forward must take {parameters}, takes {got}")


def ops() -> tuple[str, ...]:
    """Every op that has a backend."""
    return tuple(sorted(_backends))


def names(op: str) -> tuple[str, ...]:
    """The op's backends in order of preference."""
    return tuple(backend.name for backend in _backends.get(op, ()))


def get(op: str, name: str) -> Backend:
    """The op's backend of that name; ValueError if there is none."""
    for backend in _backends.get(op, ()):
        if backend.name == name:
            return backend
    raise ValueError(f"[{op}] backend must be one of {', '.join(names(op)) or '(none)'}, got {name!r}")


def forced(op: str) -> str | None:
    """The name that is forced on this op, if any. A name for every op counts where the op has such a backend."""
    if op in _forced:
        return get(op, _forced[op]).name
    everywhere = _forced.get(EVERY_OP)
    if everywhere is not None and not any(everywhere in names(each) for each in _backends):
        known = sorted({name for each in _backends for name in names(each)})
        raise ValueError(f"[dispatch] a forced backend must be one of {', '.join(known)}, got {everywhere!r}")
    return everywhere if everywhere in names(op) else None


@contextmanager
def use_backend(everywhere: str | None = None, /, **by_op: str) -> Iterator[None]:
    """Force a backend inside the block, process-wide: `use_backend("cpu")` or `use_backend(rms_norm="cpu")`.

    A name for every op counts where the op has such a backend. Raises ValueError for a name that does not exist; the
    call raises RuntimeError if the forced backend cannot run it.
    """
    global _forced
    outer = _forced
    _forced = outer | ({EVERY_OP: everywhere} if everywhere is not None else {}) | by_op
    _forget_candidates()
    try:
        for op in by_op or ops():
            forced(op)
        yield
    finally:
        _forced = outer
        _forget_candidates()


def select(op: str, args: tuple[Any, ...]) -> Backend:
    """The preferred backend that can run this call; RuntimeError with every backend's reason if none can."""
    for backend in _candidates.get(op) or _find_candidates(op):
        if backend.reject(*args) is None:
            return backend
    raise _nobody(op, args)


def select_backward(op: str, args: tuple[Any, ...]) -> Backend:
    """As `select`, among the backends that have a backward. `args` are the forward's."""
    for backend in _backward_candidates.get(op) or _find_backward_candidates(op):
        if backend.reject(*args) is None:
            return backend
    raise _nobody(op, args)


def _find_candidates(op: str) -> tuple[Backend, ...]:
    name = forced(op)
    if name is None:
        allowed = [backend for backend in _backends.get(op, ()) if backend.experimental is None]
    else:
        allowed = [get(op, name)]
    _candidates[op] = tuple(backend for backend in allowed if backend.unavailable is None)
    return _candidates[op]


def _find_backward_candidates(op: str) -> tuple[Backend, ...]:
    found = tuple(backend for backend in _find_candidates(op) if backend.backward is not None)
    if not found and forced(op) is not None:
        found = tuple(
            each
            for each in _backends[op]
            if each.backward is not None and each.unavailable is None and each.experimental is None
        )
    _backward_candidates[op] = found
    return found


def _forget_candidates() -> None:
    _candidates.clear()
    _backward_candidates.clear()


def _refusal(backend: Backend, args: tuple[Any, ...], elsewhere: bool = False) -> str | None:
    name = forced(backend.op)
    if name is not None and backend.name != name:
        return f"{name} is forced"
    if name is None and backend.experimental is not None:
        return backend.experimental
    here = None if elsewhere else backend.unavailable
    return here or backend.reject(*args)


def _nobody(op: str, args: tuple[Any, ...]) -> RuntimeError:
    reasons = "; ".join(f"{each.name}: {_refusal(each, args)}" for each in _backends.get(op, ()))
    return RuntimeError(f"[{op}] a backend must be able to run this call, got none: {reasons or 'none is registered'}")


def explain(op: str, *args: Any, device: str | None = None, elsewhere: bool = False) -> Explanation:
    """Which backend would run op(*args) (all arguments, schema order), and why each preferred one would not.

    Nothing is computed, so tensors may be fake or on the meta device. device: answer for tensors there instead.
    elsewhere: judge the call alone, as on a machine where every backend is available.
    """
    args = args if device is None else _moved(args, device)
    refused: list[tuple[str, str]] = []
    for backend in _backends.get(op, ()):
        reason = _refusal(backend, args, elsewhere)
        if reason is None:
            return Explanation(op, backend.name, tuple(refused))
        refused.append((backend.name, reason))
    return Explanation(op, None, tuple(refused))


def _moved(args: tuple[Any, ...], device: str) -> tuple[Any, ...]:
    """The arguments with fake tensors on that device, which need neither memory nor the device."""
    with FakeTensorMode(allow_non_fake_inputs=True):
        return tuple(
            torch.empty_strided(value.shape, value.stride(), dtype=value.dtype, device=device)
            if isinstance(value, torch.Tensor)
            else value
            for value in args
        )


def survey() -> list[Standing]:
    """Every op on every backend name known to any op, with the reason for each hole on this machine."""
    known = dict.fromkeys(name for op in ops() for name in names(op) if name != REFERENCE)
    return [Standing(op, name, _hole(op, name)) for op in ops() for name in (*known, REFERENCE)]


def _hole(op: str, name: str) -> str | None:
    if name not in names(op):
        return "not written for this op"
    return get(op, name).unavailable or get(op, name).experimental


def required() -> tuple[str, ...]:
    """The backends WAN_KERNELS_REQUIRE names."""
    return tuple(name.strip() for name in os.environ.get("WAN_KERNELS_REQUIRE", "").split(",") if name.strip())


def missing_required() -> list[str]:
    """What WAN_KERNELS_REQUIRE names and this machine cannot run: one line each."""
    missing = []
    for name in required():
        owners = [op for op in ops() if name in names(op)]
        missing += [] if owners else [f"{name}: no op has such a backend"]
        missing += [f"{op}/{name}: {get(op, name).unavailable}" for op in owners if get(op, name).unavailable]
    return missing
