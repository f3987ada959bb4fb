"""Argument checks with the house's one-line errors: `[op] what must hold, what was received`."""

from collections.abc import Sequence

import torch
from torch import Tensor

FLOATING = (torch.float32, torch.bfloat16, torch.float16, torch.float64)
INTEGERS = (torch.int32, torch.int64)
CODES = (torch.int8, torch.float8_e4m3fn)


def check_tensor(op: str, name: str, value: Tensor, dtypes: Sequence[torch.dtype] = FLOATING) -> None:
    """A tensor of one of the dtypes; TypeError otherwise."""
    if not isinstance(value, Tensor):
        raise TypeError(f"[{op}] {name} must be a tensor, got {type(value).__name__}")
    if value.dtype not in dtypes:
        raise TypeError(f"[{op}] {name} must be one of {', '.join(map(short, dtypes))}, got {short(value.dtype)}")


def check_shape(op: str, name: str, value: Tensor, shape: Sequence[int | None]) -> None:
    """The tensor's shape; None matches any size."""
    actual = value.shape
    if len(actual) != len(shape) or any(
        want is not None and got != want for got, want in zip(actual, shape, strict=True)
    ):
        wanted = ", ".join("*" if side is None else str(side) for side in shape)
        raise ValueError(f"[{op}] {name} must have shape ({wanted}), got {tuple(actual)}")


def check_dim(op: str, name: str, value: Tensor, num_dims: int, legend: str) -> None:
    """The tensor's number of dimensions, named by a legend such as `[B, L, D]`."""
    if value.dim() != num_dims:
        raise ValueError(f"[{op}] {name} must be {legend}, got shape {tuple(value.shape)}")


def check_same_device(op: str, **tensors: Tensor | None) -> None:
    """All tensors on one device."""
    first_name, device = "", None
    for name, value in tensors.items():
        if value is None:
            continue
        if device is None:
            first_name, device = name, value.device
        elif value.device != device:
            raise ValueError(f"[{op}] {name} must be on {first_name}'s device {device}, got {value.device}")


def check_pair(op: str, names: str, first: Tensor | None, second: Tensor | None) -> None:
    """Both or neither."""
    if (first is None) != (second is None):
        given = names.split(" and ")[first is None]
        raise ValueError(f"[{op}] {names} must come together, got only {given}")


def check_modulation(op: str, name: str, rows: Tensor, x: Tensor, index: Tensor | None) -> None:
    """rows [B, R, D] for tokens x [B, L, D]; R == 1 unless index [B, L] says each token's row.

    The index's values are not read (on a GPU that would wait for it): they must lie in [0, R).
    """
    check_tensor(op, name, rows)
    check_shape(op, name, rows, (x.shape[0], None, x.shape[2]))
    if index is None:
        if rows.shape[1] != 1:
            raise ValueError(f"[{op}] {name} must have one row where index is None, got {rows.shape[1]}")
        return
    check_tensor(op, "index", index, INTEGERS)
    check_shape(op, "index", index, x.shape[:2])


def check_layer_norm_modulate(
    op: str,
    x: Tensor,
    scale: Tensor | None,
    shift: Tensor | None,
    weight: Tensor | None,
    bias: Tensor | None,
    index: Tensor | None,
    eps: float,
    gate: Tensor | None = None,
) -> None:
    """What every form of layer_norm_modulate asks of its inputs; a gate reads the same rows as scale and shift."""
    check_tensor(op, "x", x)
    check_dim(op, "x", x, 3, "[B, L, D]")
    check_pair(op, "scale and shift", scale, shift)
    check_pair(op, "weight and bias", weight, bias)
    if scale is not None and shift is not None:
        check_modulation(op, "scale", scale, x, index)
        check_modulation(op, "shift", shift, x, index)
        check_shape(op, "shift", shift, scale.shape)
    elif index is not None and gate is None:
        raise ValueError(f"[{op}] index must come with scale and shift, got it alone")
    if weight is not None and bias is not None:
        for name, value in (("weight", weight), ("bias", bias)):
            check_tensor(op, name, value)
            check_shape(op, name, value, x.shape[2:])
    check_same_device(op, x=x, scale=scale, shift=shift, weight=weight, bias=bias, index=index)
    check_positive(op, "eps", eps)


def check_gate_residual(
    op: str, x: Tensor, y: Tensor, gate: Tensor | None, scale: Tensor | None, index: Tensor | None
) -> None:
    """What every form of gate_residual asks of its inputs; with a scale, the gate has as many rows."""
    check_tensor(op, "x", x)
    check_dim(op, "x", x, 3, "[B, L, D]")
    check_tensor(op, "y", y)
    check_shape(op, "y", y, x.shape)
    if gate is not None:
        check_modulation(op, "gate", gate, x, index)
        if scale is not None:
            check_shape(op, "scale", scale, gate.shape)
    check_same_device(op, x=x, y=y, gate=gate, index=index)


def check_rms_norm_rope(
    op: str,
    x: Tensor,
    weight: Tensor,
    freqs: tuple[Tensor, Tensor, Tensor],
    num_heads: int,
    grid: tuple[int, int, int],
    eps: float,
) -> None:
    """What every form of rms_norm_rope asks of its inputs; freqs are the tables of t, y and x."""
    check_tensor(op, "x", x)
    check_dim(op, "x", x, 3, "[B, L, N*H]")
    check_tensor(op, "weight", weight)
    check_shape(op, "weight", weight, x.shape[2:])
    if num_heads < 1 or x.shape[2] % (2 * num_heads):
        raise ValueError(f"[{op}] x's width must be num_heads * an even H, got {x.shape[2]} with {num_heads} heads")
    check_rotations(op, freqs, grid, x.shape[2] // num_heads // 2)
    num_rotated = grid[0] * grid[1] * grid[2]
    if num_rotated > x.shape[1]:
        raise ValueError(f"[{op}] grid must hold at most L = {x.shape[1]} tokens, got {tuple(grid)} = {num_rotated}")
    check_same_device(op, x=x, weight=weight, freqs_t=freqs[0], freqs_y=freqs[1], freqs_x=freqs[2])
    check_positive(op, "eps", eps)


def check_rotations(op: str, freqs: tuple[Tensor, Tensor, Tensor], grid: tuple[int, int, int], num_pairs: int) -> None:
    """Tables [length, pairs, 2] that reach over the grid and have that many pairs together."""
    if len(grid) != 3 or min(grid) < 0:
        raise ValueError(f"[{op}] grid must be (T, Y, X), none negative, got {tuple(grid)}")
    for name, table, side in zip(("freqs_t", "freqs_y", "freqs_x"), freqs, grid, strict=True):
        check_tensor(op, name, table, (torch.float32, torch.float64))
        check_shape(op, name, table, (None, None, 2))
        if table.shape[0] < side:
            raise ValueError(f"[{op}] {name} must reach position {side - 1}, got {table.shape[0]} rows")
    found = sum(table.shape[1] for table in freqs)
    if found != num_pairs:
        raise ValueError(f"[{op}] the tables' pairs must add up to H/2 = {num_pairs}, got {found}")


def check_codes_dtype(op: str, name: str, dtype: torch.dtype) -> None:
    """An 8-bit format; TypeError otherwise."""
    if dtype not in CODES:
        raise TypeError(f"[{op}] {name} must be one of {', '.join(map(short, CODES))}, got {dtype}")


def check_tokens_per_scale(op: str, tokens_per_scale: int) -> None:
    if tokens_per_scale < 1:
        raise ValueError(f"[{op}] tokens_per_scale must be at least 1, got {tokens_per_scale}")


def check_positive(op: str, name: str, value: float) -> None:
    if not value >= 0:
        raise ValueError(f"[{op}] {name} must be at least 0, got {value}")


def short(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
