"""What every triton backend shares: when it can run, what it takes, and a kernel launch as plain data.

A backend's `prepare(*args)` allocates its outputs and states its launches, its `prepare_backward(grads, inputs,
outputs, needed)` the same for gradients; forward and backward run them and the static inspection compiles them, so that
what is inspected is what runs. Triton is imported only when a kernel is asked for: kernels live in modules of their
own, named in the launch and imported by its run.
"""

import importlib
import os
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass, field
from functools import cache, wraps
from typing import Any, TypeVar

import torch
from torch import Tensor

from wan_kernels.common.cpu import DTYPES
from wan_kernels.common.cpu import gradient_like as gradient_like

CAPABILITY = (9, 0)
# Of an H200; what a persistent grid has without a GPU to ask.
NUM_MULTIPROCESSORS = 132
ALIGNMENT_BYTES = 16


@dataclass(frozen=True)
class Expectation:
    """What a kernel must compile to for sm_90a: the limits it was designed for.

    mnemonics must occur in the machine code, forbidden ones must not, those in limits not more often. is_hot: nothing
    may spill.
    """

    max_registers: int
    min_ctas_per_sm: int = 1
    mnemonics: tuple[str, ...] = ()
    forbidden: tuple[str, ...] = ()
    limits: tuple[tuple[str, int], ...] = ()
    is_hot: bool = True


@dataclass(frozen=True)
class Launch:
    """One kernel launch: `module:kernel`, its grid, its arguments and compile-time constants by name.

    makes_descriptors: the kernel makes tensor descriptors itself, for which Triton asks for memory on the device.
    """

    module: str
    kernel: str
    grid: tuple[int, ...]
    args: Mapping[str, Any]
    constants: Mapping[str, Any]
    expects: Expectation
    num_warps: int = 4
    num_stages: int = 3
    options: Mapping[str, Any] = field(default_factory=dict)
    makes_descriptors: bool = False

    def run(self) -> None:
        kernel = getattr(importlib.import_module(self.module), self.kernel)
        tensor = next(value for value in self.args.values() if isinstance(value, Tensor))
        with torch.cuda.device(tensor.device) if tensor.is_cuda else nullcontext():
            if self.makes_descriptors:
                # For each run anew: it holds for one thread, and autograd has its own.
                importlib.import_module("triton").set_allocator(scratch)
            kernel[self.grid](
                **self.args,
                **self.constants,
                num_warps=self.num_warps,
                num_stages=self.num_stages,
                **self.options,
            )


def scratch(num_bytes: int, alignment: int, stream: int | None) -> Tensor:
    """Memory on the current device, as Triton asks for it; torch's lies on 512 bytes, more than is asked for."""
    return torch.empty(num_bytes, dtype=torch.int8, device="cuda")


Outputs = tuple[Tensor, ...]
Gradients = tuple[Tensor | None, ...]
Result = TypeVar("Result")


def running(prepare: Callable[..., tuple[Result, list[Launch]]]) -> Callable[..., Result]:
    """The forward or backward, of the same signature, that runs what `prepare` states."""

    @wraps(prepare)
    def run(*args: Any) -> Result:
        result, launches = prepare(*args)
        for launch in launches:
            launch.run()
        return result

    return run


def is_interpreting() -> bool:
    """Whether kernels run in Triton's interpreter, on the CPU: TRITON_INTERPRET=1 before their first use."""
    return os.environ.get("TRITON_INTERPRET", "0").lower() in ("1", "true", "on", "yes", "y")


@cache
def missing() -> str | None:
    """Why Triton cannot be imported, or None."""
    try:
        importlib.import_module("triton")
    except ImportError as error:
        return f"triton does not import: {error}"
    return None


def unavailable() -> str | None:
    """Why Triton kernels cannot run here, or None: `available` of every triton backend."""
    if not is_interpreting():
        if not torch.cuda.is_available():
            return "torch sees no CUDA device, and TRITON_INTERPRET=1 is not set"
        if (found := torch.cuda.get_device_capability()) != CAPABILITY:
            return f"kernels are tuned for compute capability 9.0, this device has {found[0]}.{found[1]}"
    return missing()


def reject_device(x: Tensor) -> str | None:
    """Why kernels cannot reach this tensor, or None."""
    if x.is_cuda or (x.is_cpu and is_interpreting()):
        return None
    return f"needs tensors on CUDA, got {x.device}"


def reject_tensors(*tensors: Tensor | None) -> str | None:
    """Why kernels cannot take these floating tensors, or None."""
    for tensor in tensors:
        if tensor is None:
            continue
        if (reason := reject_device(tensor)) is not None:
            return reason
        if tensor.dtype not in DTYPES:
            return f"has no {str(tensor.dtype).removeprefix('torch.')} kernel"
    return None


def as_rows(x: Tensor) -> Tensor:
    """x [..., D] as [rows, D] with the last dim contiguous; a copy only where it has to be one."""
    width = x.shape[-1]
    rows = x.reshape(x.numel() // width if width else x.shape[:-1].numel(), width)
    return rows if width <= 1 or rows.stride(-1) == 1 else rows.contiguous()


def with_dense_rows(table: Tensor | None) -> Tensor | None:
    """A table of rows whose last dim is contiguous; its other strides stay."""
    return table if table is None or table.stride(-1) == 1 else table.contiguous()


def strides(table: Tensor | None, num_dims: int) -> tuple[int, ...]:
    """The first strides of a table, zeros where there is none."""
    return (0,) * num_dims if table is None else table.stride()[:num_dims]


def is_aligned(x: Tensor) -> bool:
    """Whether x starts on 16 bytes, as allocations do; from its offset, so that fake tensors have an answer."""
    return x.storage_offset() * x.element_size() % ALIGNMENT_BYTES == 0


def num_multiprocessors(device: torch.device) -> int:
    if device.type == "cuda" and torch.cuda.is_available():
        return int(torch.cuda.get_device_properties(device).multi_processor_count)
    return NUM_MULTIPROCESSORS


def next_power_of_2(value: int) -> int:
    return 1 << max(value - 1, 0).bit_length()
