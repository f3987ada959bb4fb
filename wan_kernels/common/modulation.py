"""Modulation rows: a batch holds few distinct timesteps, so scale, shift and gate have R rows; tokens point at them."""

import torch
from torch import Tensor


def rows_of_tokens(rows: Tensor, index: Tensor | None) -> Tensor:
    """The row of each token: rows [B, R, D], index [B, L] -> [B, L, D]; no index (R == 1) -> rows, to broadcast."""
    if index is None:
        return rows
    num_samples, num_rows, width = rows.shape
    first_row = torch.arange(num_samples, device=index.device).unsqueeze(1) * num_rows
    # index_select, not indexing: its backward is one index_add, not an index_put that sorts.
    return rows.reshape(-1, width).index_select(0, (index + first_row).flatten()).view(*index.shape, width)
