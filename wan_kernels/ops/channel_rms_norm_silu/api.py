"""The public function."""

from torch import Tensor

from wan_kernels.ops.channel_rms_norm_silu import reference


def channel_rms_norm_silu(x: Tensor, weight: Tensor, *, apply_silu: bool = True) -> Tensor:
    return reference.forward(x, weight, apply_silu)
