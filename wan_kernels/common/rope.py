"""The 3D rotary embedding in plain PyTorch: what every room that rotates states."""

import torch
from torch import Tensor

Grid = list[int] | tuple[int, int, int]


def rotations(freqs_t: Tensor, freqs_y: Tensor, freqs_x: Tensor, grid: Grid) -> Tensor:
    """(cos, sin) of every pair at every grid position: [T*Y*X, H/2, 2]."""
    num_t, num_y, num_x = grid
    axes = (
        freqs_t[:num_t, None, None].expand(num_t, num_y, num_x, -1, -1),
        freqs_y[None, :num_y, None].expand(num_t, num_y, num_x, -1, -1),
        freqs_x[None, None, :num_x].expand(num_t, num_y, num_x, -1, -1),
    )
    return torch.cat(axes, dim=3).flatten(0, 2)


def rotate(x: Tensor, freqs_t: Tensor, freqs_y: Tensor, freqs_x: Tensor, grid: Grid) -> Tensor:
    """The pairs (2i, 2i+1) of x [B, L, N, H] turned in x's dtype; tokens past the grid stay."""
    turns = torch.view_as_complex(rotations(freqs_t, freqs_y, freqs_x, grid).to(x.dtype)).unsqueeze(1)
    num_rotated = turns.shape[0]
    pairs = torch.view_as_complex(x[:, :num_rotated].unflatten(-1, (-1, 2)))
    rotated = torch.view_as_real(pairs * turns).flatten(-2)
    return rotated if num_rotated == x.shape[1] else torch.cat((rotated, x[:, num_rotated:]), dim=1)
