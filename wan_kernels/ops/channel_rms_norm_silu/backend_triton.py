"""channel_rms_norm_silu in Triton, forward and backward, for contiguous and channels-last tensors. Experimental until a
hardware record shows that it passes: it runs only when forced.

The gradient of weight is summed in float32 in a fixed order.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from wan_kernels import records
from wan_kernels.common.triton import (
    Expectation,
    Gradients,
    Launch,
    gradient_like,
    next_power_of_2,
    reject_tensors,
    running,
    unavailable,
    with_dense_rows,
)
from wan_kernels.common.triton_sums import resident_programs, sum_launches, walk
from wan_kernels.dispatch import register_backend
from wan_kernels.ops.channel_rms_norm_silu.layout import dense, layout_of

NAME = "channel_rms_norm_silu"
MODULE = "wan_kernels.ops.channel_rms_norm_silu.kernels_triton"
# Channels side by side: up to here a position stays in registers. Channels far apart: so do 16 positions, whose
# elements of a channel fill a sector of 32 bytes.
MAX_CHANNELS, MAX_PLANES = 16384, 1024
VALUES_PER_THREAD, BACKWARD_VALUES_PER_THREAD = 32, 16
# Several programs for each that fits by the most registers a kernel may take: with fewer channels more of them fit.
WAVES = 4
EXPECTS = Expectation(max_registers=72, min_ctas_per_sm=3)
BACKWARD_REGISTERS = 128
BACKWARD_EXPECTS = Expectation(max_registers=BACKWARD_REGISTERS)


@dataclass(frozen=True)
class Tiles:
    """A dense x as [samples, channels, positions], and the tiles [POSITIONS, CHANNELS] it is worked on in.

    Channels-last positions run through all samples.
    """

    num_samples: int
    num_positions: int
    strides: tuple[int, int, int]  # sample, channel, position
    position_lanes: int
    channel_lanes: int

    @property
    def num_blocks(self) -> int:
        """Of a sample."""
        return -(-self.num_positions // self.position_lanes)

    def num_warps(self, values_per_thread: int) -> int:
        return max(1, min(16, self.position_lanes * self.channel_lanes // (32 * values_per_thread)))

    def args(self, num_channels: int) -> dict[str, Any]:
        names = "sample_stride", "channel_stride", "position_stride"
        return dict(zip(names, self.strides, strict=True)) | {
            "num_channels": num_channels,
            "num_positions": self.num_positions,
            "num_blocks": self.num_blocks,
            "root": num_channels**0.5,
        }


def tiles_of(x: Tensor) -> Tiles:
    """Of a dense x that is not empty."""
    num_samples, num_channels = x.shape[:2]
    num_positions = x.numel() // (num_samples * num_channels)
    lanes = next_power_of_2(num_channels)
    if layout_of(x) is torch.contiguous_format:
        strides = num_channels * num_positions, num_positions, 1
        # Longer runs of positions for few channels; 16384 values are what a program holds.
        return Tiles(num_samples, num_positions, strides, min(256, max(8192 // lanes, min(32, 16384 // lanes))), lanes)
    return Tiles(1, num_samples * num_positions, (0, 1, num_channels), max(1, 4096 // lanes), lanes)


def prepare(x: Tensor, weight: Tensor, apply_silu: bool) -> tuple[Tensor, list[Launch]]:
    """The output, and what fills it."""
    x = dense(x)
    out = torch.empty_like(x)
    if out.numel() == 0:
        return out, []
    tiles = tiles_of(x)
    launch = Launch(
        module=MODULE,
        kernel="channel_rms_norm_silu_fwd_kernel",
        grid=(tiles.num_samples * tiles.num_blocks,),
        args={"x": x, "weight": with_dense_rows(weight), "out": out} | tiles.args(x.shape[1]),
        constants={"HAS_SILU": apply_silu, "POSITIONS": tiles.position_lanes, "CHANNELS": tiles.channel_lanes},
        expects=EXPECTS,
        num_warps=tiles.num_warps(VALUES_PER_THREAD),
    )
    return out, [launch]


def prepare_backward(
    grads: tuple[Tensor], inputs: tuple[Tensor, Tensor, bool], outputs: tuple[Tensor], needed: tuple[bool, bool]
) -> tuple[Gradients, list[Launch]]:
    """The gradients of x and weight, and what fills them."""
    x, weight, apply_silu = inputs
    if x.numel() == 0:
        return (None, None), []
    x = dense(x)
    tiles = tiles_of(x)
    num_warps = tiles.num_warps(BACKWARD_VALUES_PER_THREAD)
    num_all_blocks = tiles.num_samples * tiles.num_blocks
    spans = walk(num_all_blocks, WAVES * resident_programs(x.device, num_warps, BACKWARD_REGISTERS))
    grad_x = torch.empty_like(x) if needed[0] else None
    grad_weight = gradient_like(weight, needed[1])
    slots = spans.slots(x.shape[1], x.device, needed[1])
    args = {
        "grad_out": grads[0].contiguous(memory_format=layout_of(x) or torch.contiguous_format),
        "x": x,
        "weight": with_dense_rows(weight),
        "grad_x": grad_x,
        "weight_slots": slots,
        "num_all_blocks": num_all_blocks,
        "span": spans.span,
    }
    launch = Launch(
        module=MODULE,
        kernel="channel_rms_norm_silu_bwd_kernel",
        grid=(spans.num_programs,),
        args=args | tiles.args(x.shape[1]),
        constants={"HAS_SILU": apply_silu, "POSITIONS": tiles.position_lanes, "CHANNELS": tiles.channel_lanes},
        expects=BACKWARD_EXPECTS,
        num_warps=num_warps,
    )
    return (grad_x, grad_weight), [launch, *sum_launches((spans, slots, grad_weight))]


def reject(x: Tensor, weight: Tensor, apply_silu: bool) -> str | None:
    layout = layout_of(x)
    if layout is None:
        return "needs x in contiguous or channels-last order"
    most = MAX_PLANES if layout is torch.contiguous_format else MAX_CHANNELS
    if not 0 < x.shape[1] <= most:
        return f"keeps all channels of a position in registers: it takes 1 to {most} in this layout, got {x.shape[1]}"
    return reject_tensors(x, weight)


register_backend(
    NAME,
    "triton",
    forward=running(prepare),
    backward=running(prepare_backward),
    available=unavailable,
    reject=reject,
    unproven=lambda: records.unproven(NAME, "triton"),
)
