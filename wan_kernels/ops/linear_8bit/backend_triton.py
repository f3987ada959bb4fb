"""linear_8bit in a persistent Triton kernel on the 8-bit tensor cores. Experimental until a hardware record shows that
it passes: it runs only when forced.

int8 sums are exact. float8 sums leave the tensor core's accumulators for float32 after every 128 of K, with fast_accum
never; the second set of accumulators this takes halves the tile. An 8-bit result needs its whole row before the first
code: the product writes float32 to a temporary and the row quantiser follows. K that is no multiple of 16 is padded
with zeros first, since the copy engine wants rows of whole 16 bytes.
"""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from wan_kernels import records
from wan_kernels.common.quantize import LIMITS
from wan_kernels.common.triton import (
    ALIGNMENT_BYTES,
    DTYPES,
    Expectation,
    Launch,
    Outputs,
    as_rows,
    is_aligned,
    num_multiprocessors,
    reject_device,
    reject_tensors,
    running,
    strides,
    unavailable,
    with_dense_rows,
)
from wan_kernels.common.triton_quantize import quantize_launch
from wan_kernels.dispatch import register_backend
from wan_kernels.ops.linear_8bit.packing import is_packed

NAME = "linear_8bit"
WIDTH = 128  # bytes of K in a tile: one row of the widest shared-memory swizzle
GROUP = 8


@dataclass(frozen=True)
class Tile:
    """Sides of an output tile, and how the kernel works on it."""

    rows: int
    columns: int
    num_warps: int
    num_stages: int
    max_registers: int


# A thread holds 128 sums of a wide tile, 64 of a square one.
WIDE = Tile(128, 256, num_warps=8, num_stages=4, max_registers=248)
SQUARE = Tile(128, 128, num_warps=8, num_stages=4, max_registers=192)


def prepare(
    x: Tensor,
    x_scale: Tensor,
    weight: Tensor,
    weight_scale: Tensor,
    out_dtype: torch.dtype,
    bias: Tensor | None,
    residual: Tensor | None,
    gate: Tensor | None,
    index: Tensor | None,
    gelu: bool,
    fast_accum: bool,
) -> tuple[Outputs, list[Launch]]:
    """The outputs, and what fills them."""
    shape = (*x.shape[:-1], weight_scale.shape[0])
    out = torch.empty(shape, dtype=out_dtype, device=x.device)
    out_scale = torch.empty(shape[:-1] if out_dtype in LIMITS else 0, dtype=torch.float32, device=x.device)
    result = torch.empty(shape, dtype=torch.float32, device=x.device) if out_dtype in LIMITS else out
    launches = []
    if result.numel():
        tensors = x, x_scale, weight, weight_scale, result, bias, residual, gate, index
        launches.append(product_launch(*tensors, gelu, fast_accum))
    if out_scale.numel():
        launches.append(quantize_launch(result, out, out_scale))
    return (out, out_scale), launches


def product_launch(
    x: Tensor,
    x_scale: Tensor,
    weight: Tensor,
    weight_scale: Tensor,
    out: Tensor,
    bias: Tensor | None,
    residual: Tensor | None,
    gate: Tensor | None,
    index: Tensor | None,
    gelu: bool,
    fast_accum: bool,
) -> Launch:
    """The product and its float epilogue into out, which is not empty."""
    rows, weight = for_copy_engine(as_rows(x)), for_copy_engine(weight)
    num_rows, num_columns = rows.shape[0], weight.shape[0]
    is_int8 = x.dtype is torch.int8
    is_precise = not is_int8 and not fast_accum
    has_one_gate_row = gate is not None and gate.shape[0] * gate.shape[1] == 1
    # A precise sum is there twice; a gate row per token takes registers too, and a wide int8 tile then spills 16 bytes.
    tile = SQUARE if is_precise or (gate is not None and not has_one_gate_row) else WIDE
    residual = None if residual is None else as_rows(residual)
    gate = with_dense_rows(gate)
    gate_strides, index_strides = strides(gate, 2), strides(index, 2)
    num_tiles = -(-num_rows // tile.rows) * -(-num_columns // tile.columns)
    args = {
        "x": tiles_of(rows, tile.rows),
        "weight": tiles_of(weight, tile.columns),
        "out": out,
        "x_scale": x_scale.reshape(-1).contiguous(),
        "weight_scale": weight_scale.contiguous(),
        "bias": with_dense_rows(bias),
        "residual": residual,
        "gate": gate,
        "index": index,
        "residual_stride": 0 if residual is None else residual.stride(0),
        "gate_stride_sample": gate_strides[0],
        "gate_stride_row": gate_strides[1],
        "index_stride_sample": index_strides[0],
        "index_stride_token": index_strides[1],
        "num_rows": num_rows,
        "num_columns": num_columns,
        "width": rows.shape[1],
        "num_tokens": x.shape[-2] if x.dim() > 1 else 1,
    }
    constants = {
        "ROWS": tile.rows,
        "COLUMNS": tile.columns,
        "WIDTH": WIDTH,
        "GROUP": GROUP,
        "IS_INT8": is_int8,
        "IS_PRECISE": is_precise,
        "HAS_ONE_GATE_ROW": has_one_gate_row,
        "GELU": gelu,
    }
    return Launch(
        module="wan_kernels.ops.linear_8bit.kernels_triton",
        kernel="linear_8bit_fwd_kernel",
        grid=(min(num_tiles, num_multiprocessors(x.device)),),
        args=args,
        constants=constants,
        expects=Expectation(
            max_registers=tile.max_registers,
            mnemonics=("IGMMA" if is_int8 else "QGMMA", "UTMALDG"),
            forbidden=("LDGSTS",),
        ),
        num_warps=tile.num_warps,
        num_stages=tile.num_stages,
    )


def for_copy_engine(rows: Tensor) -> Tensor:
    """8-bit rows [R, K] whose starts all lie on 16 bytes: itself where it can be, else a copy, K padded with zeros."""
    missing = -rows.shape[1] % ALIGNMENT_BYTES or ALIGNMENT_BYTES * (rows.shape[1] == 0)
    if missing:
        # float8 has no padding of its own.
        return F.pad(rows.view(torch.int8), (0, missing)).view(rows.dtype)
    is_fit = rows.stride(0) % ALIGNMENT_BYTES == 0 and rows.stride(1) == 1 and is_aligned(rows)
    return rows if is_fit else rows.clone(memory_format=torch.contiguous_format)


def tiles_of(rows: Tensor, num_rows: int) -> object:
    """The copy engine's view of rows [R, K]: tiles [num_rows, WIDTH], zeros beyond the sides."""
    from triton.tools.tensor_descriptor import TensorDescriptor

    return TensorDescriptor.from_tensor(rows, [num_rows, WIDTH])


def reject(
    x: Tensor,
    x_scale: Tensor,
    weight: Tensor,
    weight_scale: Tensor,
    out_dtype: torch.dtype,
    bias: Tensor | None,
    residual: Tensor | None,
    gate: Tensor | None,
    index: Tensor | None,
    gelu: bool,
    fast_accum: bool,
) -> str | None:
    if (reason := reject_device(x)) is not None:
        return reason
    if is_packed(weight):
        return "takes the weight as [N, K]: the packed layout is the CPU's"
    if out_dtype not in DTYPES and out_dtype not in LIMITS:
        return f"has no {str(out_dtype).removeprefix('torch.')} output"
    return reject_tensors(bias, residual, gate)


register_backend(
    NAME,
    "triton",
    forward=running(prepare),
    available=unavailable,
    reject=reject,
    unproven=lambda: records.unproven(NAME, "triton"),
)
