"""How far a backend's result is from the reference's on the very inputs that are timed."""

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from wan_kernels import dispatch
from wan_kernels.common.quantize import LIMITS, dequantize
from wan_kernels.define_op import Op


def errors_of(op: Op, backends: Sequence[str], args: tuple[Any, ...]) -> dict[str, dict[str, Any]]:
    """For each backend but the reference: error_max, in units of the largest value, and sqnr_db, None without noise."""
    wanted = values_of(op, dispatch.REFERENCE, args)
    signal, largest = wanted.square().sum().item(), wanted.abs().max().item()
    errors: dict[str, dict[str, Any]] = {}
    for backend in backends:
        if backend in dispatch.names(op.name) and backend != dispatch.REFERENCE and signal > 0:
            noise = values_of(op, backend, args).sub_(wanted).abs_()
            power = noise.square().sum().item()
            sqnr = 10 * math.log10(signal / power) if power else None
            errors[backend] = {"error_max": noise.max().item() / largest, "sqnr_db": sqnr}
    return errors


@torch.no_grad()
def values_of(op: Op, backend: str, args: tuple[Any, ...]) -> Tensor:
    """What is compared, in float32 and new memory: the first output, or the values that its codes stand for.

    A code says nothing without its scale. Codes with a scale per row are undone here; a room whose scales belong to
    anything else says how in its reference: `dequantized(outputs, args by name)`.
    """
    with dispatch.use_backend(**{op.name: backend}):
        result = op(*args)
    outputs = result if isinstance(result, tuple) else (result,)
    if (dequantized := getattr(op.reference, "dequantized", None)) is not None:
        return dequantized(outputs, dict(zip(op.parameters, args, strict=True))).float()
    if outputs[0].dtype in LIMITS:
        return dequantize(*outputs)
    return outputs[0].detach().float().clone()
