"""What the launches of causal convolutions share: which tensors they take, and how the product is cut into tiles.

The kernel reads channels-last: x and its history [B, T, Y, X, C] as they lie, and the weight [O, kt, ky, kx, C], each
output channel's factors in the order in which they are summed, so that 16 bytes come at a time. That is torch's
`channels_last_3d` of [O, C, kt, ky, kx]: a weight that is kept so is read where it is. Any other is copied in each
call, which at the H200's 4.8 TB/s costs 3 % of the product's least time at 384 channels and one frame of 90 x 160
(16 MB in 3.3 us of 116), and 12 % at 1,024 and one of 45 x 80 (113 MB in 24 us of 206).

Every width of the VAEs is a whole number of some tile's columns, 96 = 64 + 32, 160 = 128 + 32, 192 = 128 + 64, and of a
step's channels, but for the few at the ends: 3 and 12 channels are multiplied as 16, in and out.

float32 is multiplied as three tf32 products (22 bits of each factor), a sixth of bfloat16's speed; one such product
would keep 11 bits, and Hopper's tensor cores have no other for float32.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product

import torch
from torch import Tensor

from wan_kernels.common.triton import ALIGNMENT_BYTES, Expectation, Launch, num_multiprocessors, reject_tensors
from wan_kernels.common.video import layout_of

MAX_ELEMENTS = 2**31 - 1  # of a frame, and of the weight: the kernel counts within them in int32
MAX_TAPS = 31  # of a window within a frame: one bit of an int32 each
# What a program has of the columns: one block or two, each a power of two.
WIDTHS = ((128, 128), (128, 64), (128, 32), (128, 0), (64, 32), (64, 0), (32, 16), (32, 0), (16, 0))
MIN_COLUMNS = 64  # where there are as many
PIXELS = 256, 128, 64
CHANNELS = 64, 32, 16
ROW_BYTES = 128  # of channels in shared memory: the widest swizzle
# Of a thread, by bytes of a factor: sums, and registers that a step and the epilogue take beside them; parts of float32
# factors lie in registers.
MAX_SUMS = {2: 128, 4: 48}
MAX_BESIDES = {2: 127, 4: 166}
# A smaller tile reads more for the same products; it has to be done in less than this share of the time.
WORTH_SHRINKING = 0.8
MAX_STAGES, STAGE_BYTES = 4, 200 * 1024  # of a multiprocessor, which 8 warps take
MAX_REGISTERS = 255  # that a thread can have: 128 columns of 256 pixels and a residual fill them


@dataclass(frozen=True)
class Tile:
    """Sides of a program's part of the product."""

    pixels: int
    width: int
    more_width: int

    @property
    def columns(self) -> int:
        return self.width + self.more_width

    @property
    def num_warps(self) -> int:
        return 4 if self.pixels == 64 else 8

    @property
    def num_per_multiprocessor(self) -> int:
        return 8 // self.num_warps

    @property
    def num_sums(self) -> int:
        """Of a thread."""
        return self.pixels * self.columns // (32 * self.num_warps)

    def num_programs(self, num_frames: int, num_pixels: int, num_out: int) -> int:
        return num_frames * -(-num_pixels // self.pixels) * -(-num_out // self.columns)


def tiles_for(num_out: int, num_bytes: int) -> list[Tile]:
    """The tiles that waste the fewest columns, the largest first: they read the least."""
    tiles = [Tile(pixels, *widths) for pixels, widths in product(PIXELS, WIDTHS)]
    fit = [tile for tile in tiles if tile.num_sums <= MAX_SUMS[num_bytes] and tile.columns >= min(MIN_COLUMNS, num_out)]
    least = min(-num_out % tile.columns for tile in fit)
    thrifty = [tile for tile in fit if -num_out % tile.columns == least]
    return sorted(thrifty, key=lambda tile: (tile.pixels * tile.columns, tile.columns), reverse=True)


def tile_for(num_frames: int, num_pixels: int, num_out: int, num_bytes: int, device: torch.device) -> Tile:
    """The largest tile, or a smaller one that is done sooner: programs go in waves, one to a multiprocessor, and a wave
    takes as long as a tile has sums. The interpreter has one.
    """
    num_slots = num_multiprocessors(device) if device.type == "cuda" else 1
    best, least = None, math.inf
    for tile in tiles_for(num_out, num_bytes):
        num_waves = -(-tile.num_programs(num_frames, num_pixels, num_out) // num_slots)
        num_sums = num_waves * tile.pixels * tile.columns
        if num_sums < least * WORTH_SHRINKING:
            best, least = tile, num_sums
    assert best is not None
    return best


def channels_for(num_in: int, num_bytes: int) -> int:
    """Input channels of a step: those that waste the fewest, the most at a time."""
    fit = [channels for channels in CHANNELS if channels * num_bytes <= ROW_BYTES]
    return min(fit, key=lambda channels: (-num_in % channels, -channels))


def reject_conv3d(x: Tensor, weight: Tensor, *others: Tensor | None) -> str | None:
    """Why the kernel cannot take these tensors, or None."""
    if layout_of(x) is not torch.channels_last_3d:
        return "needs x in channels-last order"
    if (taps := math.prod(weight.shape[3:])) > MAX_TAPS:
        return f"takes windows of at most {MAX_TAPS} taps in a frame, got {taps}"
    if max(math.prod((x.shape[1], *x.shape[3:])), weight.numel()) > MAX_ELEMENTS:
        return f"takes frames and weights of at most {MAX_ELEMENTS} elements"
    return reject_tensors(x, weight, *others)


def empty_video(shape: Sequence[int], x: Tensor) -> Tensor:
    """Channels-last memory of x's type."""
    return torch.empty(tuple(shape), dtype=x.dtype, device=x.device, memory_format=torch.channels_last_3d)


def conv3d_launch(
    x: Tensor,
    history: Tensor | None,
    weight: Tensor,
    bias: Tensor | None,
    out: Tensor,
    *,
    position: int,
    stride: Sequence[int],
    padding: Sequence[int],
    residual: Tensor | None = None,
    enlarged_bits: int = 0,
) -> Launch:
    """out [B, O, T', Y', X'] = convolution of (history, x) + bias + residual, out channels-last and not empty.

    history [B, C, R, Y, X]: of the `position` frames before x, the one that came i frames before it lies in slot
    (position - i) % R; only the last kt - stride_t are read, and those before the first are zeros. padding: rows of
    zeros at the top and columns of zeros on the left; out says where the others end. enlarged_bits: 1 where every pixel
    of x stands for 2 x 2.
    """
    num_in, num_out = x.shape[1], out.shape[1]
    num_bytes = x.element_size()
    num_pixels = math.prod(out.shape[3:])
    num_frames = out.shape[0] * out.shape[2]
    tile = tile_for(num_frames, num_pixels, num_out, num_bytes, x.device)
    channels = channels_for(num_in, num_bytes)
    step_bytes = (tile.pixels + tile.columns) * channels * num_bytes
    args = {
        "x": dense(x),
        "history": dense(history),
        "weight": dense(weight),
        "bias": None if bias is None else bias.contiguous(),
        "residual": dense(residual),
        "out": out,
        "position": position,
        "in_frames": x.shape[2],
        "rows": x.shape[3],
        "columns": x.shape[4],
        "num_frames": out.shape[2],
        "out_rows": out.shape[3],
        "out_columns": out.shape[4],
        "top": padding[0],
        "left": padding[1],
    }
    constants = {
        "NUM_SLOTS": 1 if history is None else history.shape[2],
        "NUM_IN": num_in,
        "NUM_OUT": num_out,
        **dict(zip(("TAPS_T", "TAPS_Y", "TAPS_X"), weight.shape[2:], strict=True)),
        **dict(zip(("STRIDE_T", "STRIDE_Y", "STRIDE_X"), stride, strict=True)),
        "ENLARGED_BITS": enlarged_bits,
        "PIXELS": tile.pixels,
        "WIDTH": tile.width,
        "MORE_WIDTH": tile.more_width,
        "CHANNELS": channels,
        "PRECISION": "tf32x3" if x.dtype is torch.float32 else "tf32",
    }
    return Launch(
        module="wan_kernels.common.triton_conv3d_kernel",
        kernel="conv3d_fwd_kernel",
        grid=(tile.num_programs(num_frames, num_pixels, num_out),),
        args=args,
        constants=constants,
        expects=expectation(tile, num_in, num_bytes),
        num_warps=tile.num_warps,
        num_stages=min(MAX_STAGES, STAGE_BYTES // tile.num_per_multiprocessor // step_bytes),
    )


def dense(x: Tensor | None) -> Tensor | None:
    """x itself where it is channels-last without gaps, else a copy that is."""
    if x is None or x.is_contiguous(memory_format=torch.channels_last_3d):
        return x
    return x.clone(memory_format=torch.channels_last_3d)


def expectation(tile: Tile, num_in: int, num_bytes: int) -> Expectation:
    """Pixels of whole 16 bytes come to shared memory without registers."""
    return Expectation(
        max_registers=min(MAX_REGISTERS, tile.num_sums + MAX_BESIDES[num_bytes]),
        min_ctas_per_sm=tile.num_per_multiprocessor,
        mnemonics=("HGMMA", "LDGSTS") if num_in * num_bytes % ALIGNMENT_BYTES == 0 else ("HGMMA",),
    )
