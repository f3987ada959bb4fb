"""What a network would do, learnt by running it on meta tensors: every op with its shapes, and the peak of memory.

Nothing is computed or allocated, so the 14B at 720p is traced in a second on a laptop, and no formula about the model
is written down a second time.
"""

import weakref
from collections.abc import Callable
from dataclasses import dataclass, field
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


class _Recorder(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.trace = Trace()
        self.live: dict[int, int] = {}
        self.live_bytes = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        outputs = [leaf for leaf in tree_leaves(result) if isinstance(leaf, Tensor)]
        if self._hold(outputs) or func.namespace == "wan_kernels":
            self._count(func, args, kwargs, result, outputs)
        return result

    def _hold(self, outputs: list[Tensor]) -> bool:
        """Adds storages not seen before to what is alive; False when the outputs are only views."""
        is_new = False
        for output in outputs:
            storage = output.untyped_storage()
            key = storage._cdata
            if key in self.live:
                continue
            is_new = True
            self.live[key] = storage.nbytes()
            self.live_bytes += self.live[key]
            weakref.finalize(storage, self._release, key)
        self.trace.peak_bytes = max(self.trace.peak_bytes, self.live_bytes)
        return is_new

    def _release(self, key: int) -> None:
        self.live_bytes -= self.live.pop(key, 0)

    def _count(self, func: Any, args: Any, kwargs: Any, result: Any, outputs: list[Tensor]) -> None:
        is_room = func.namespace == "wan_kernels"
        name = func._schema.name.split("::")[1]
        inputs = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        op = name if is_room else LIBRARY_OPS.get(name, "elementwise")
        shape = "" if op == "elementwise" else describe(op, inputs)
        call = self.trace.calls.get((op, shape))
        if call is None:
            call = self.trace.calls[op, shape] = Call(op, shape, _keep(args, kwargs, func), is_room)
        call.num_calls += 1
        call.num_bytes += sum(tensor.nbytes for tensor in inputs + outputs)
        if op in ("linear", "matmul", "convolution"):
            call.flops += flop_registry[func.overloadpacket](*args, **kwargs, out_val=result)


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
