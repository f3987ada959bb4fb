"""Modulation rows: a batch holds few distinct timesteps, so scale, shift and gate have R rows; tokens point at them.

And the two formulas that read them, each the specification of several rooms.
"""

import torch
from torch import Tensor
from torch.nn import functional as F


def rows_of_tokens(rows: Tensor, index: Tensor | None) -> Tensor:
    """The row of each token: rows [B, R, D], index [B, L] -> [B, L, D]; no index (R == 1) -> rows, to broadcast."""
    if index is None:
        return rows
    num_samples, num_rows, width = rows.shape
    first_row = torch.arange(num_samples, device=index.device).unsqueeze(1) * num_rows
    # index_select, not indexing: its backward is one index_add, not an index_put that sorts.
    return rows.reshape(-1, width).index_select(0, (index + first_row).flatten()).view(*index.shape, width)


def add_gated(x: Tensor, y: Tensor, gate: Tensor | None, index: Tensor | None) -> Tensor:
    """x + y [* gate[row]] in promote_types(x.dtype, float32), rounded once to x.dtype; contiguous."""
    compute = torch.promote_types(x.dtype, torch.float32)
    added = y.to(compute) if gate is None else y.to(compute) * rows_of_tokens(gate.to(compute), index)
    return (x.to(compute) + added).to(x.dtype).contiguous()


def normalise_and_modulate(
    x: Tensor,
    scale: Tensor | None,
    shift: Tensor | None,
    weight: Tensor | None,
    bias: Tensor | None,
    index: Tensor | None,
    eps: float,
) -> Tensor:
    """(LN(x) [* weight + bias]) [* (1 + scale[row]) + shift[row]], in and of promote_types(x.dtype, float32)."""
    compute = torch.promote_types(x.dtype, torch.float32)
    weight, bias = (None if each is None else each.to(compute) for each in (weight, bias))
    y = F.layer_norm(x.to(compute), x.shape[-1:], weight, bias, eps)
    if scale is None or shift is None:
        return y
    return y * (1 + rows_of_tokens(scale.to(compute), index)) + rows_of_tokens(shift.to(compute), index)
