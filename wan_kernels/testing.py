"""How a backend is held to its reference: truth in float64, the tolerance rule, buffers poisoned with NaN.

Rule: max|backend - truth| <= 2 x max|reference in the same dtype - truth| + floor, floor scaled by max|truth|.
"""

import importlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from unittest import mock

import torch
from torch import Tensor

from wan_kernels import dispatch
from wan_kernels.common.case import Case
from wan_kernels.common.quantize import LIMITS
from wan_kernels.define_op import OPS, Op

# Of the codes of a tensor that two exact-to-rounding computations may put on different sides of a middle.
MAX_SHARE_OFF = 2e-3
FLOORS = {torch.float64: 1e-12, torch.float32: 1e-6, torch.float16: 1e-4, torch.bfloat16: 1e-3}


@dataclass(frozen=True)
class Outcome:
    """What a call gave: its outputs, and the gradient of each input that can have one, by name."""

    outputs: dict[str, Tensor]
    gradients: dict[str, Tensor]


def cases_of(op: str) -> tuple[Case, ...]:
    """The op's cases."""
    return importlib.import_module(f"wan_kernels.ops.{op}.cases").CASES


def widened(args: Sequence[Any]) -> tuple[Any, ...]:
    """The same arguments for the truth: floating tensors and dtypes become float64, 8-bit codes and layouts stay."""

    def widen(value: Any) -> Any:
        if isinstance(value, Tensor) and value.dtype in FLOORS:
            return value.double()
        return torch.float64 if isinstance(value, torch.dtype) and value in FLOORS else value

    return tuple(map(widen, args))


def outcome(op: Op, call: Callable[..., Any], args: Sequence[Any], cotangents: Sequence[Tensor]) -> Outcome:
    """Run forward, and backward from the cotangents (cast to the outputs' dtypes). What a call mutates is an output."""
    args = own_mutated(op, [value.detach() if isinstance(value, Tensor) else value for value in args])
    slots = [
        slot
        for slot, is_differentiable in zip(op.tensor_slots, op.differentiable, strict=True)
        if is_differentiable and args[slot] is not None and args[slot].is_floating_point()
    ]
    for slot in slots:
        args[slot].requires_grad_()
    outputs = (*_as_tuple(call(*args)), *(args[slot] for slot in op.mutated_slots))
    gradients: dict[str, Tensor] = {}
    if not slots:
        return Outcome({f"output_{i}": y.detach() for i, y in enumerate(outputs)}, gradients)
    # From the first output alone too: a gradient through the others may take another path.
    for num_used in sorted({1, len(outputs)}):
        ys = outputs[:num_used]
        grads = [grad.to(y.dtype) for y, grad in zip(ys, cotangents, strict=False)]
        sources = [args[slot] for slot in slots]
        found = torch.autograd.grad(ys, sources, grads, retain_graph=True, materialize_grads=True)
        for slot, grad in zip(slots, found, strict=True):
            gradients[f"grad_{op.parameters[slot]}_from_{num_used}"] = grad
    return Outcome({f"output_{i}": y.detach() for i, y in enumerate(outputs)}, gradients)


def own_mutated(op: Op, args: Sequence[Any]) -> list[Any]:
    """The arguments, with copies of those that the op writes to."""
    return [value.clone() if slot in op.mutated_slots else value for slot, value in enumerate(args)]


def cotangents_for(op: Op, args: Sequence[Any], seed: int = 1) -> list[Tensor]:
    """Random gradients of the outputs, rounded to the outputs' dtypes so that every run starts from the same."""
    with torch.no_grad():
        outputs = _as_tuple(op.reference.forward(*own_mutated(op, args)))
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(y.shape, generator=generator).to(y.dtype).to(y.device) for y in outputs]


def truth_of(op: Op, args: Sequence[Any], cotangents: Sequence[Tensor]) -> Outcome:
    """The reference in float64, differentiated by autograd."""
    return outcome(op, op.reference.forward, widened(args), cotangents)


def check(op_name: str, backend: str, case: Case, dtype: torch.dtype, device: str = "cpu") -> None:
    """Hold one backend to one case, forward and backward; AssertionError says by how much it is off."""
    op = OPS[op_name]
    args = case.args(dtype, device)
    cotangents = cotangents_for(op, args)
    truth = truth_of(op, args, cotangents)
    with dispatch.use_backend(**{op_name: dispatch.REFERENCE}):
        reference = outcome(op, op, args, cotangents)
    with dispatch.use_backend(**{op_name: backend}), poisoned_allocations():
        found = outcome(op, op, args, cotangents)
    title = f"{op_name}/{case.name}/{str(dtype).removeprefix('torch.')}/{backend}"
    for part in ("outputs", "gradients"):
        compare(case, title, dtype, getattr(found, part), getattr(reference, part), getattr(truth, part))
    check_layouts(title, op, args, found)


def compare(
    case: Case,
    title: str,
    dtype: torch.dtype,
    found: dict[str, Tensor],
    reference: dict[str, Tensor],
    truth: dict[str, Tensor],
) -> None:
    """The tolerance rule on every tensor; NaN and infinity must sit where the truth has them."""
    assert found.keys() == truth.keys(), f"{title}: has {sorted(found)}, truth has {sorted(truth)}"
    for name, wanted in truth.items():
        got, same = found[name], reference[name]
        assert got.shape == wanted.shape, f"{title}/{name}: shape {tuple(got.shape)}, truth {tuple(wanted.shape)}"
        assert got.dtype == same.dtype, f"{title}/{name}: {got.dtype}, reference {same.dtype}"
        if got.dtype in LIMITS:
            compare_codes(f"{title}/{name}", got, same, wanted)
            continue
        # As finite as the type can hold: 1e6 is infinite in float16.
        is_finite = wanted.to(got.dtype).isfinite()
        strays = int((got.double().isfinite() != is_finite).sum())
        assert strays == 0, f"{title}/{name}: {strays} of {wanted.numel()} elements finite where truth is not, or not"
        if not is_finite.any():
            continue
        scale = max(wanted[is_finite].abs().max().item(), case.min_scale)
        error, allowed = (max_error(each, wanted, is_finite) for each in (got, same))
        bound = 2 * allowed + case.floors.get((name, dtype), FLOORS[got.dtype]) * scale
        assert error <= bound, (
            f"{title}/{name}: max error {error:.3g}, allowed {bound:.3g} (reference is off by {allowed:.3g}, "
            f"truth reaches {scale:.3g})"
        )


def compare_codes(title: str, got: Tensor, same: Tensor, truth: Tensor) -> None:
    """8-bit codes: a value near the middle of two may fall to either side, so few may differ, and by one step only."""
    steps, allowed = ((code_order(each) - code_order(truth)).abs() for each in (got, same))
    num_off, num_allowed = int(steps.count_nonzero()), int(allowed.count_nonzero())
    most = 2 * num_allowed + max(1, round(MAX_SHARE_OFF * truth.numel()))
    assert steps.numel() == 0 or steps.max() <= 1, f"{title}: codes off by {int(steps.max())} steps, allowed 1"
    assert num_off <= most, f"{title}: {num_off} of {truth.numel()} codes off by one, allowed {most}"


def code_order(codes: Tensor) -> Tensor:
    """Consecutive integers for consecutive codes: int8 is its own order, float8 is sign and magnitude."""
    if codes.dtype is torch.int8:
        return codes.int()
    bits = codes.view(torch.int8).int()
    return torch.where(bits < 0, -(bits & 0x7F), bits)


def max_error(got: Tensor, truth: Tensor, where: Tensor) -> float:
    return (got.double() - truth)[where].abs().max().item()


def check_layouts(title: str, op: Op, args: Sequence[Any], found: Outcome) -> None:
    """Strides as the fake promised them to the compiler: its generated code relies on them."""
    with torch.no_grad():
        promised = _as_tuple(op.reference.forward(*own_mutated(op, args)))
    for (name, got), wanted in zip(found.outputs.items(), promised, strict=not op.mutated_slots):
        assert significant_strides(got) == significant_strides(wanted), (
            f"{title}/{name}: strides {got.stride()} for shape {tuple(got.shape)}, promised {wanted.stride()}"
        )


def significant_strides(x: Tensor) -> tuple[int, ...]:
    """Strides of the dims that have more than one element."""
    return tuple(stride for stride, side in zip(x.stride(), x.shape, strict=True) if side > 1 and x.numel())


def poison(x: Tensor) -> Tensor:
    """Fills x with what no kernel writes: NaN, or the one int8 code that is not used."""
    if x.dtype is torch.int8:
        return x.fill_(-128)
    return x.fill_(float("nan")) if x.is_floating_point() else x


@contextmanager
def poisoned_allocations() -> Iterator[None]:
    """Inside, torch.empty and its kin give NaN, so that an element nobody wrote shows."""

    def poisoned(allocate: Callable[..., Tensor]) -> Callable[..., Tensor]:
        def empty(*args: Any, **kwargs: Any) -> Tensor:
            x = allocate(*args, **kwargs)
            return poison(x)

        return empty

    names = ("empty", "empty_like", "empty_strided")
    patches = [mock.patch.object(torch, name, poisoned(getattr(torch, name))) for name in names]
    patches.append(mock.patch.object(Tensor, "new_empty", poisoned(Tensor.new_empty)))
    for patch in patches:
        patch.start()
    try:
        yield
    finally:
        for patch in patches:
            patch.stop()


def _as_tuple(value: Any) -> tuple[Tensor, ...]:
    return value if isinstance(value, tuple) else (value,)
