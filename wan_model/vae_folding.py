"""Space, time and channels folded into each other, without weights: what the Wan 2.2 VAE adds to that of 2.1.

Letters: B batch, C channels, T frames, Y rows, X columns. A stride counts (frames, pixels); pixels along both sides.

The first frame of a video stands alone, so it takes no part in folding time: averaging pads frames of zeros on its
left, duplicating drops its copies. Chunks that do not start the video hold whole groups of frames, and need neither.
The two shortcuts leave a pixel's channels side by side in memory, as the layers that they lead around do.
Source: Wan2.2 at 42bf4cf, modules/vae2_2.py.
"""

import torch.nn.functional as F
from torch import Tensor

Stride = tuple[int, int]


def patchify(x_BCTYX: Tensor, size: int) -> Tensor:
    """Squares of `size` x `size` pixels become channels, in the order channel, column, row: [B, C * size^2, ...].

    Raises: RuntimeError where rows or columns are not multiples of `size`.
    """
    B, C, T, Y, X = x_BCTYX.shape
    squares = x_BCTYX.reshape(B, C, T, Y // size, size, X // size, size)
    return squares.permute(0, 1, 6, 4, 2, 3, 5).reshape(B, C * size**2, T, Y // size, X // size)


def unpatchify(x_BCTYX: Tensor, size: int) -> Tensor:
    """The inverse of `patchify`."""
    B, _, T, Y, X = x_BCTYX.shape
    squares = x_BCTYX.reshape(B, -1, size, size, T, Y, X)
    return squares.permute(0, 1, 4, 5, 3, 6, 2).reshape(B, -1, T, Y * size, X * size)


def average_down(x_BCTYX: Tensor, out_dim: int, stride: Stride, *, starts_video: bool) -> Tensor:
    """Blocks of frames, rows and columns become channels, and equal runs of these are averaged to `out_dim`.

    x_BCTYX: [B, C, T, Y, X] with Y and X multiples of `pixels`, T one of `frames`, plus 1 where the video starts.
    Returns: [B, out_dim, ceil(T / frames), Y / pixels, X / pixels]; `out_dim` divides C * frames * pixels^2.
    """
    frames, pixels = stride
    if starts_video and frames > 1:
        x_BCTYX = F.pad(x_BCTYX, (0, 0, 0, 0, frames - 1, 0))
    B, C, T, Y, X = x_BCTYX.shape
    grid = (T // frames, Y // pixels, X // pixels)
    blocks = x_BCTYX.reshape(B, C, grid[0], frames, grid[1], pixels, grid[2], pixels)
    return blocks.permute(0, 2, 4, 6, 1, 3, 5, 7).reshape(B, *grid, out_dim, -1).mean(-1).permute(0, 4, 1, 2, 3)


def duplicate_up(x_BCTYX: Tensor, out_dim: int, stride: Stride, *, starts_video: bool) -> Tensor:
    """Each channel is repeated in a row, and runs of these become blocks of frames, rows and columns.

    x_BCTYX: [B, C, T, Y, X]; C divides out_dim * frames * pixels^2.
    Returns: [B, out_dim, T * frames, Y * pixels, X * pixels], without the first frames - 1 where the video starts.
    """
    frames, pixels = stride
    B, C, T, Y, X = x_BCTYX.shape
    repeats = out_dim * frames * pixels**2 // C
    copies = x_BCTYX.unsqueeze(2).expand(B, C, repeats, T, Y, X)
    blocks = copies.reshape(B, out_dim, frames, pixels, pixels, T, Y, X).permute(0, 5, 2, 6, 3, 7, 4, 1)
    y_BCTYX = blocks.reshape(B, T * frames, Y * pixels, X * pixels, out_dim).permute(0, 4, 1, 2, 3)
    return y_BCTYX[:, :, frames - 1 :] if starts_video else y_BCTYX
