"""The only torch.library glue: one call turns a room's reference into an op with fake, autograd and backends.

Selection happens inside the op's body, so a compiled graph picks the backend anew on each call. The fake is the
reference itself on fake tensors. The backward is an op of its own, `<op>_backward`, so that graphs keep it whole.

Eager calls that need no gradient go straight to the backend. What a call costs beyond its backend's body of 2.5 us
(rms_norm on cpu, 4 x 8, torch 2.13, shared x86 host, best of 41 x 400 interleaved calls): selection 0.5 us, the direct
way 1.3 us, through the dispatcher 5.8 us (`torch.library.custom_op` 7.8 us), with a gradient 21 us either way; the
public function's checks add 1.8 us.
"""

from collections.abc import Callable
from types import ModuleType
from typing import Any

import torch
from torch import Tensor
from torch._C import _len_torch_dispatch_stack
from torch._C._functorch import peek_interpreter_stack

from wan_kernels import dispatch
from wan_kernels.common.cost import Cost

_library = torch.library.Library("wan_kernels", "FRAGMENT")

OPS: dict[str, "Op"] = {}

PLAIN_TENSORS = frozenset((Tensor, torch.nn.Parameter))
PLAIN_DATA = frozenset((int, float, bool, list, type(None), torch.dtype))


class Op:
    """A defined op: call it with every argument, positional, in schema order."""

    def __init__(
        self, schema: str, reference: ModuleType, no_gradient: tuple[str, ...], is_inference_only: bool
    ) -> None:
        parsed = torch._C.parse_schema(f"wan_kernels::{schema}")
        self.name = parsed.name.removeprefix("wan_kernels::")
        self.reference = reference
        self.parameters = tuple(argument.name for argument in parsed.arguments)
        self.defaults = tuple(argument.default_value for argument in parsed.arguments)
        self.tensor_slots = tuple(i for i, each in enumerate(parsed.arguments) if _is_tensor(each.type))
        self.mutated_slots = tuple(
            i for i, each in enumerate(parsed.arguments) if each.alias_info is not None and each.alias_info.is_write
        )
        self.is_inference_only = is_inference_only
        self.differentiable = tuple(
            not is_inference_only and self.parameters[i] not in no_gradient for i in self.tensor_slots
        )
        self.num_outputs = len(parsed.returns)

        _library.define(schema)
        self.overload = getattr(torch.ops.wan_kernels, self.name).default
        if is_inference_only:
            return
        _library.define(_backward_schema(self.name, schema))
        self.backward_overload = getattr(torch.ops.wan_kernels, f"{self.name}_backward").default

    def __call__(self, *args: Any) -> Any:
        if torch.compiler.is_compiling():
            return self.overload(*args)
        if _needs_dispatcher(args):
            return self.overload(*args)
        return dispatch.select(self.name, args).forward(*args)

    def cost(self, *args: Any) -> Cost:
        """FLOPs and compulsory bytes of this call, from shapes and dtypes alone."""
        return self.reference.cost(*args)

    def fill_defaults(self, args: tuple[Any, ...]) -> tuple[Any, ...]:
        """The dispatcher drops trailing arguments that equal their defaults; backends get them all."""
        return args + self.defaults[len(args) :]

    def tensors(self, args: tuple[Any, ...]) -> tuple[Tensor | None, ...]:
        return tuple(args[i] for i in self.tensor_slots)


def define_op(
    schema: str, reference: ModuleType, *, no_gradient: tuple[str, ...] = (), is_inference_only: bool = False
) -> Op:
    """Define `wan_kernels::<op>` from its schema and its reference; check every backend of the op against it.

    reference: has forward(*args) and cost(*args), and backward(grads, inputs, outputs, needed) where the gradient by
    autograd of forward would waste work. It becomes the last backend. no_gradient: tensors that never get a gradient.
    is_inference_only: there is no backward at all, and asking for one raises RuntimeError.
    """
    op = Op(schema, reference, no_gradient, is_inference_only)
    backward = None
    if not is_inference_only:
        backward = getattr(reference, "backward", None) or _backward_by_autograd(op)
    dispatch.register_backend(op.name, dispatch.REFERENCE, forward=reference.forward, backward=backward)
    dispatch.set_parameters(op.name, op.parameters)
    _implement_forward(op)
    if is_inference_only:
        _refuse_backward(op)
    else:
        _implement_autograd(op)
        _implement_backward(op)
    OPS[op.name] = op
    return op


def _is_tensor(kind: Any) -> bool:
    return str(kind) in ("Tensor", "Optional[Tensor]")


def _backward_schema(name: str, schema: str) -> str:
    inputs = schema[schema.index("(") + 1 : schema.rindex(") ->")]
    without_defaults = ", ".join(argument.partition("=")[0] for argument in _split_arguments(inputs))
    return f"{name}_backward(Tensor?[] grads, {without_defaults}, Tensor[] outputs, bool[] needed) -> Tensor[]"


def _split_arguments(text: str) -> list[str]:
    parts, depth, start = [], 0, 0
    for i, letter in enumerate(text):
        depth += (letter == "[") - (letter == "]")
        if letter == "," and depth == 0:
            parts.append(text[start:i].strip())
            start = i + 1
    return [*parts, text[start:].strip()]


def _needs_dispatcher(args: tuple[Any, ...]) -> bool:
    """Whether autograd, a tracing mode or a tensor subclass must see this call."""
    if _len_torch_dispatch_stack() or peek_interpreter_stack() is not None:
        return True
    wants_gradient = torch.is_grad_enabled()
    for value in args:
        kind = type(value)
        if kind in PLAIN_TENSORS:
            if (value.requires_grad and wants_gradient) or value.is_meta:
                return True
        elif kind not in PLAIN_DATA:
            return True
    return False


def _implement_forward(op: Op) -> None:
    def forward(*args: Any) -> Any:
        args = op.fill_defaults(args)
        return dispatch.select(op.name, args).forward(*args)

    def fake(*args: Any) -> Any:
        return op.reference.forward(*op.fill_defaults(args))

    _library.impl(op.name, forward, "CompositeExplicitAutograd")
    torch.library.register_fake(f"wan_kernels::{op.name}", fake, lib=_library)


def _refuse_backward(op: Op) -> None:
    if op.mutated_slots:
        return _refuse_gradients(op)

    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
        raise RuntimeError(f"[{op.name}] must run without gradients: it has none; got a backward through it")

    torch.library.register_autograd(f"wan_kernels::{op.name}", backward, lib=_library)


def _refuse_gradients(op: Op) -> None:
    """An op that writes to its arguments cannot promise autograd an error for later: it refuses at once."""

    def forward(keyset: Any, *args: Any) -> Any:
        if torch.is_grad_enabled() and any(isinstance(each, Tensor) and each.requires_grad for each in args):
            raise RuntimeError(f"[{op.name}] must run without gradients: it has none; got tensors that require them")
        return op.overload.redispatch(keyset & torch._C._after_autograd_keyset, *args)

    _library.impl(op.name, forward, "Autograd", with_keyset=True)


def _implement_autograd(op: Op) -> None:
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        ctx.set_materialize_grads(False)
        outputs = output if isinstance(output, tuple) else (output,)
        ctx.save_for_backward(*op.tensors(inputs), *outputs)
        ctx.options = tuple(None if i in op.tensor_slots else value for i, value in enumerate(inputs))

    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
        num_inputs = len(op.tensor_slots)
        tensors, outputs = ctx.saved_tensors[:num_inputs], ctx.saved_tensors[num_inputs:]
        # Trailing arguments that equal their defaults never reached autograd: it knows and wants fewer.
        num_seen = len(ctx.needs_input_grad)
        needs = (*ctx.needs_input_grad, *[False] * (len(op.parameters) - num_seen))
        needed = [needs[i] and ok for i, ok in zip(op.tensor_slots, op.differentiable, strict=True)]
        gradients: list[Tensor | None] = [None] * len(op.parameters)
        if any(needed) and any(grad is not None for grad in grads):
            args = list(ctx.options)
            for slot, tensor in zip(op.tensor_slots, tensors, strict=True):
                args[slot] = tensor
            found = iter(op.backward_overload(list(grads), *args, list(outputs), needed))
            for slot, is_needed in zip(op.tensor_slots, needed, strict=True):
                gradients[slot] = next(found) if is_needed else None
        return tuple(gradients[:num_seen])

    torch.library.register_autograd(f"wan_kernels::{op.name}", backward, setup_context=setup_context, lib=_library)


def _implement_backward(op: Op) -> None:
    name = f"{op.name}_backward"

    def backward(grads: list[Tensor | None], *rest: Any) -> list[Tensor]:
        *inputs, outputs, needed = rest
        args, needed = tuple(inputs), tuple(needed)
        backend = dispatch.select_backward(op.name, args)
        assert backend.backward is not None
        call = (tuple(grads), args, tuple(outputs))
        found = backend.backward(*call, needed) if backend.takes_needed else backend.backward(*call)
        return [
            _own_gradient(args[slot], gradient, grads)
            for slot, gradient, is_needed in zip(op.tensor_slots, found, needed, strict=True)
            if is_needed
        ]

    def fake(grads: list[Tensor | None], *rest: Any) -> list[Tensor]:
        needed = rest[-1]
        return [
            torch.empty_like(rest[slot]) for slot, is_needed in zip(op.tensor_slots, needed, strict=True) if is_needed
        ]

    def refuse_second(keyset: Any, grads: list[Tensor | None], *rest: Any) -> list[Tensor]:
        tensors = [*grads, *(value for value in rest if isinstance(value, Tensor))]
        if torch.is_grad_enabled() and any(each is not None and each.requires_grad for each in tensors):
            raise RuntimeError(f"[{op.name}] must be differentiated once only, got a backward with create_graph=True")
        return op.backward_overload.redispatch(keyset & torch._C._after_autograd_keyset, grads, *rest)

    _library.impl(name, backward, "CompositeExplicitAutograd")
    _library.impl(name, refuse_second, "Autograd", with_keyset=True)
    torch.library.register_fake(f"wan_kernels::{name}", fake, lib=_library)


def _own_gradient(x: Tensor, gradient: Tensor | None, grads: list[Tensor | None]) -> Tensor:
    """The gradient in the layout the fake promises, never an alias of what came in."""
    if gradient is None:
        return torch.zeros_like(x)
    if gradient.stride() != x.stride() and gradient.stride() != (like := torch.empty_like(x)).stride():
        return like.copy_(gradient)
    storages = [each.untyped_storage().data_ptr() for each in grads if each is not None]
    return gradient.clone() if gradient.untyped_storage().data_ptr() in storages else gradient


def _backward_by_autograd(op: Op) -> Callable[..., tuple[Tensor | None, ...]]:
    def backward(
        grads: tuple[Tensor | None, ...], inputs: tuple[Any, ...], outputs: tuple[Tensor, ...], needed: tuple[bool, ...]
    ) -> tuple[Tensor | None, ...]:
        args = list(inputs)
        wanted = [slot for slot, is_needed in zip(op.tensor_slots, needed, strict=True) if is_needed]
        with torch.enable_grad():
            for slot in wanted:
                args[slot] = inputs[slot].detach().requires_grad_()
            result = op.reference.forward(*args)
        results = result if isinstance(result, tuple) else (result,)
        pairs = [(y, grad) for y, grad in zip(results, grads, strict=True) if grad is not None and y.requires_grad]
        if not pairs:  # what is wanted does not reach the outputs that have a gradient
            return (None,) * len(needed)
        ys, cotangents = zip(*pairs, strict=True)
        found = iter(torch.autograd.grad(ys, [args[slot] for slot in wanted], cotangents, allow_unused=True))
        return tuple(next(found) if is_needed else None for is_needed in needed)

    return backward
