"""causal_conv3d_ring in Triton on Hopper's tensor cores: causal_conv3d's kernel, which reads frames before x in their
slots and adds the residual to its float32 sums. Experimental until a hardware record shows that it passes: it runs only
when forced.

The norm is a pass of its own over the frames that are read, rounded to x's type. On load it would be taken again for
each of 27 taps: a step of 256 pixels by 32 channels needs 8,192 exponentials, 512 clocks of a multiprocessor, where its
products with 96 columns take 384; and ptxas serialises wgmma whose pixels have been through registers (inspected). The
pass moves 4 bytes where those products have 5,184 operations, 16 % of their least time at 96 channels and 8 at 192; the
frames before x are normed anew in each call.

The last frames of x are copied to the ring by torch, after the products in the stream.
"""

from functools import wraps
from typing import Any

import torch
from torch import Tensor

from wan_kernels import records
from wan_kernels.common.conv3d import out_shape
from wan_kernels.common.triton import Expectation, Launch, next_power_of_2, running, unavailable
from wan_kernels.common.triton_conv3d import conv3d_launch, dense, empty_video, reject_conv3d
from wan_kernels.dispatch import register_backend
from wan_kernels.ops.causal_conv3d_ring import reference

NAME = "causal_conv3d_ring"
MAX_CHANNELS = 16384  # of a normed pixel, in registers
VALUES, VALUES_PER_THREAD = 4096, 32
NORM_EXPECTS = Expectation(max_registers=72, min_ctas_per_sm=3)


def prepare(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    ring: Tensor,
    position: int,
    norm_weight: Tensor | None,
    residual: Tensor | None,
    stride: list[int],
    padding: list[int],
) -> tuple[Tensor, list[Launch]]:
    """The output, and what fills it; not what fills the ring."""
    out = empty_video(out_shape(x, weight, stride, padding), x)
    if out.numel() == 0:
        return out, []
    num_history = weight.shape[2] - stride[0]
    past = ring if num_history else None
    launches = []
    if norm_weight is not None:
        num_past = min(position, num_history)
        normed = torch.empty_like(x)
        past = empty_video((*x.shape[:2], num_history, *x.shape[3:]), x) if num_history else None
        launches.append(norm_launch(x, ring, norm_weight, normed, past, position, num_past))
        x, position = normed, num_past
    top, _, left, _ = padding
    launches.append(
        conv3d_launch(
            x, past, weight, bias, out, position=position, stride=stride, padding=(top, left), residual=residual
        )
    )
    return out, launches


def norm_launch(
    x: Tensor, ring: Tensor, weight: Tensor, normed: Tensor, past: Tensor | None, position: int, num_past: int
) -> Launch:
    """normed = norm(x), and past those of the num_past frames before it, as conv3d_launch takes them."""
    num_samples, num_in, num_frames, rows, columns = x.shape
    lanes = next_power_of_2(num_in)
    pixels = max(1, VALUES // lanes)
    num_programs = num_samples * (num_past + num_frames) * -(-rows * columns // pixels)
    args = {
        "x": x,
        "ring": dense(ring),
        "weight": weight.contiguous(),
        "normed": normed,
        "past": past,
        "position": position,
        "num_past": num_past,
        "num_frames": num_frames,
        "num_pixels": rows * columns,
        "root": num_in**0.5,
    }
    constants = {
        "NUM_SLOTS": max(1, ring.shape[2]),
        "NUM_PAST_SLOTS": 1 if past is None else past.shape[2],
        "NUM_IN": num_in,
        "PIXELS": pixels,
        "CHANNELS": lanes,
    }
    return Launch(
        module="wan_kernels.ops.causal_conv3d_ring.kernels_triton",
        kernel="norm_frames_kernel",
        grid=(num_programs,),
        args=args,
        constants=constants,
        expects=NORM_EXPECTS,
        num_warps=max(1, min(16, pixels * lanes // (32 * VALUES_PER_THREAD))),
    )


@wraps(prepare)
def forward(*args: Any) -> Tensor:
    x, weight, _, ring, position, _, _, stride, _ = args
    out: Tensor = running(prepare)(*args)
    reference.write(x, ring, position, weight.shape[2] - stride[0])
    return out


def reject(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    ring: Tensor,
    position: int,
    norm_weight: Tensor | None,
    residual: Tensor | None,
    stride: list[int],
    padding: list[int],
) -> str | None:
    if norm_weight is not None and x.shape[1] > MAX_CHANNELS:
        return f"keeps all channels of a pixel in registers: it takes at most {MAX_CHANNELS}, got {x.shape[1]}"
    return reject_conv3d(x, weight, bias, ring, norm_weight, residual)


register_backend(
    NAME,
    "triton",
    forward=forward,
    available=unavailable,
    reject=reject,
    unproven=lambda: records.unproven(NAME, "triton"),
)
