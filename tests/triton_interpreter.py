"""Triton 3.6's interpreter made to agree with the hardware: float casts as the GPU rounds them, exact dot operands,
multiply-adds that round once.

As it comes, it multiplies the codes of bfloat16 operands, casts to float8 without saturation, carry or subnormals, and
rounds the product of a multiply-add too. Here casts go through torch, clamped to what the type holds since the GPU's
float8 conversion saturates, and dots multiply what the codes mean. int8 products go through float64, which holds their
sums exactly and has a fast matmul; so do multiply-adds in float32, whose products it holds exactly.

Left out is its check of every int32 sum and product for overflow, which the GPU does not make either: with it kernels
that count much take 1.6 times as long, and the cases here are too small to overflow anything.
"""

from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import torch

FLOATS = {
    "fp8e4nv": torch.float8_e4m3fn,
    "fp8e5": torch.float8_e5m2,
    "fp16": torch.float16,
    "bf16": torch.bfloat16,
    "fp32": torch.float32,
}
INTEGERS = {1: torch.uint8, 2: torch.int16, 4: torch.int32}
UNSIGNED = {1: np.uint8, 2: np.uint16, 4: np.uint32}


@cache
def repair() -> None:
    """Replace the interpreter's float casts, dot and multiply-add, once per process."""
    from triton.runtime import interpreter

    theirs = interpreter._convert_float

    def convert(data: np.ndarray, source: Any, target: Any, rounding: Any) -> np.ndarray:
        if str(source) not in FLOATS or str(target) not in FLOATS:
            return theirs(data, source, target, rounding)
        values = as_float32(data, str(source))
        if target.primitive_bitwidth == 8:
            most = torch.finfo(FLOATS[str(target)]).max
            values = values.clamp(-most, most)
        size = target.primitive_bitwidth // 8
        codes = values.to(FLOATS[str(target)]).view(INTEGERS[size]).numpy()
        return codes.view(UNSIGNED[size]).reshape(data.shape)

    def dot(builder: Any, a: Any, b: Any, total: Any, precision: Any, max_num_imprecise: Any) -> Any:
        product = np.matmul(operand(a), operand(b))
        return interpreter.TensorHandle(product.astype(total.data.dtype) + total.data, total.dtype.scalar)

    def fma(builder: Any, x: Any, y: Any, z: Any) -> Any:
        exact = np.multiply(x.data, y.data, dtype=np.float64) + z.data
        return interpreter.TensorHandle(exact.astype(z.data.dtype), z.dtype.scalar)

    builder = interpreter.interpreter_builder
    builder.options = replace(builder.options, sanitize_overflow=False)
    interpreter._convert_float = convert
    interpreter.InterpreterBuilder.create_dot = dot
    interpreter.InterpreterBuilder.create_fma = fma


def as_float32(data: np.ndarray, name: str) -> torch.Tensor:
    """The values that codes of a float type stand for, flat."""
    kind = INTEGERS[FLOATS[name].itemsize]
    codes = torch.from_numpy(np.frombuffer(data.tobytes(), dtype=UNSIGNED[kind.itemsize]).copy())
    return codes.view(kind).view(FLOATS[name]).float()


def operand(handle: Any) -> np.ndarray:
    name = str(handle.dtype.scalar)
    if name in FLOATS:
        return as_float32(handle.data, name).numpy().reshape(handle.data.shape)
    return handle.data.astype(np.float64) if name == "int8" else handle.data
