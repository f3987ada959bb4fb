"""upsample_conv2d in Triton on Hopper's tensor cores: causal_conv3d's kernel, which reads each pixel where it lies for
all four that it stands for. Experimental until a hardware record shows that it passes: it runs only when forced.
"""

from torch import Tensor

from wan_kernels import records
from wan_kernels.common.triton import Launch, running, unavailable
from wan_kernels.common.triton_conv3d import conv3d_launch, empty_video, reject_conv3d
from wan_kernels.dispatch import register_backend

NAME = "upsample_conv2d"


def prepare(x: Tensor, weight: Tensor, bias: Tensor | None) -> tuple[Tensor, list[Launch]]:
    """The output, and what fills it."""
    num_samples, _, frames, rows, columns = x.shape
    out = empty_video((num_samples, weight.shape[0], frames, 2 * rows, 2 * columns), x)
    if out.numel() == 0:
        return out, []
    launch = conv3d_launch(
        x, None, weight.unsqueeze(2), bias, out, position=0, stride=(1, 1, 1), padding=(1, 1), enlarged_bits=1
    )
    return out, [launch]


def reject(x: Tensor, weight: Tensor, bias: Tensor | None) -> str | None:
    return reject_conv3d(x, weight.unsqueeze(2), bias)


register_backend(
    NAME,
    "triton",
    forward=running(prepare),
    available=unavailable,
    reject=reject,
    unproven=lambda: records.unproven(NAME, "triton"),
)
