"""causal_conv3d in Triton on Hopper's tensor cores, channels-last. Experimental until a hardware record shows that it
passes: it runs only when forced.

x and its history are read where they are: nothing is joined, padded or copied but the new history. The gradient is the
reference's.
"""

from torch import Tensor

from wan_kernels import records
from wan_kernels.common.conv3d import out_shape
from wan_kernels.common.triton import Launch, Outputs, running, unavailable
from wan_kernels.common.triton_conv3d import conv3d_launch, empty_video, reject_conv3d
from wan_kernels.dispatch import register_backend
from wan_kernels.ops.causal_conv3d import reference

NAME = "causal_conv3d"


def prepare(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    cache: Tensor | None,
    stride: list[int],
    padding: list[int],
    return_cache: bool,
) -> tuple[Outputs, list[Launch]]:
    """The output and the new history, and what fills the output."""
    out = empty_video(out_shape(x, weight, stride, padding), x)
    kept = reference.last_frames(x, cache, reference.num_kept(weight, stride, return_cache))
    if out.numel() == 0:
        return (out, kept), []
    history = cache if cache is not None and cache.shape[2] else None
    position = 0 if history is None else history.shape[2]
    top, _, left, _ = padding
    launch = conv3d_launch(x, history, weight, bias, out, position=position, stride=stride, padding=(top, left))
    return (out, kept), [launch]


def reject(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    cache: Tensor | None,
    stride: list[int],
    padding: list[int],
    return_cache: bool,
) -> str | None:
    return reject_conv3d(x, weight, bias, cache)


register_backend(
    NAME,
    "triton",
    forward=running(prepare),
    available=unavailable,
    reject=reject,
    unproven=lambda: records.unproven(NAME, "triton"),
)
