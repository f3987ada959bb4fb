"""What a network would do, learnt by running it on meta tensors: every op with its shapes, and the peak of memory.

Nothing is computed or allocated, so the 14B at 720p is traced in a second on a laptop, and no formula about the model
is written down a second time.
"""

import weakref
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry

LIBRARY_OPS = {
    "mm": "linear",
    "addmm": "linear",
    "bmm": "matmul",
    "baddbmm": "matmul",
    "convolution": "convolution",
}


@dataclass
class Call:
    """One op at one shape: `num_calls` calls of it. `args` are those of the first, on the meta device."""

    op: str
    shape: str
    args: tuple[Any, ...]
    is_room: bool
    num_calls: int = 0
    flops: int = 0
    num_bytes: int = 0


@dataclass
class Trace:
    """Calls in the order of their first appearance, and the most bytes alive at once (weights not counted)."""

    calls: dict[tuple[str, str], Call] = field(default_factory=dict)
    peak_bytes: int = 0


def trace(run: Callable[[], object]) -> Trace:
    """Runs `run`, whose tensors must be on the meta device, and writes down what it did.

    FLOPs count a multiply-add as 2 and cover matrix products and convolutions; rooms are counted by the caller, who
    knows their cost. Bytes are inputs plus outputs, each moved once. Peak counts whole tensors between ops; what a
    kernel allocates inside itself is not seen, so it is a lower bound.
    """
    recorder = _Recorder()
    with torch.no_grad(), recorder:
        result = run()
    del result
    return recorder.trace


def extrapolate(fewer: Trace, more: Trace, num_steps: int) -> Trace:
    """`fewer`, plus `num_steps` times what `more` does beyond it: a network of equal blocks from its first two."""
    calls = {key: replace(call) for key, call in fewer.calls.items()}
    for key, call in more.calls.items():
        known = calls.setdefault(key, replace(call, num_calls=0, flops=0, num_bytes=0))
        before = fewer.calls.get(key, replace(known))
        known.num_calls += num_steps * (call.num_calls - before.num_calls)
        known.flops += num_steps * (call.flops - before.flops)
        known.num_bytes += num_steps * (call.num_bytes - before.num_bytes)
    return Trace(calls, max(fewer.peak_bytes, more.peak_bytes))


class _Recorder(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.trace = Trace()
        self.live: dict[int, int] = {}
        self.live_bytes = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        inputs, outputs = tensors((args, kwargs)), tensors(result)
        if self._hold(inputs, outputs) or func.namespace == "wan_kernels":
            self._count(func, args, kwargs, result, inputs, outputs)
        return result

    def _hold(self, inputs: list[Tensor], outputs: list[Tensor]) -> bool:
        """Adds new storages to what is alive; False when every output is a view of an input or the input itself."""
        old = {tensor.untyped_storage()._cdata for tensor in inputs}
        new = {storage._cdata: storage for storage in (tensor.untyped_storage() for tensor in outputs)}
        for key in new.keys() - old:
            self.live[key] = new[key].nbytes()
            self.live_bytes += self.live[key]
            weakref.finalize(new[key], self._release, key)
        self.trace.peak_bytes = max(self.trace.peak_bytes, self.live_bytes)
        return bool(new.keys() - old)

    def _release(self, key: int) -> None:
        self.live_bytes -= self.live.pop(key, 0)

    def _count(
        self, func: Any, args: Any, kwargs: Any, result: Any, inputs: list[Tensor], outputs: list[Tensor]
    ) -> None:
        is_room = func.namespace == "wan_kernels"
        name = func._schema.name.split("::")[1]
        op = name if is_room else LIBRARY_OPS.get(name, "elementwise")
        shape = "" if op == "elementwise" else describe(op, inputs)
        call = self.trace.calls.get((op, shape))
        if call is None:
            call = self.trace.calls[op, shape] = Call(op, shape, _keep(args, kwargs, func), is_room)
        call.num_calls += 1
        call.num_bytes += sum(tensor.nbytes for tensor in inputs + outputs)
        if op in ("linear", "matmul", "convolution"):
            call.flops += flop_registry[func.overloadpacket](*args, **kwargs, out_val=result)


def tensors(tree: Any) -> list[Tensor]:
    return [leaf for leaf in tree_leaves(tree) if isinstance(leaf, Tensor)]


def _keep(args: Any, kwargs: Any, func: Any) -> tuple[Any, ...]:
    """The arguments in schema order, tensors replaced by fresh ones of their shape so that nothing is kept alive."""
    values = [
        args[index] if index < len(args) else kwargs.get(argument.name, argument.default_value)
        for index, argument in enumerate(func._schema.arguments)
    ]
    return tuple(torch.empty_like(value) if isinstance(value, Tensor) else value for value in values)


def describe(op: str, inputs: list[Tensor]) -> str:
    """`75600x5120 @ 5120x13824` for a product, the shapes of the first tensors for a room."""
    if op in ("linear", "matmul"):
        left, right = inputs[-2:]
        return f"{_sides(left)} @ {_sides(right)}"
    shown = inputs[:2] if op in ("attention", "convolution", "causal_conv3d") else inputs[:1]
    return ", ".join(_sides(tensor) for tensor in shown)


def _sides(tensor: Tensor) -> str:
    return "x".join(str(side) for side in tensor.shape)
