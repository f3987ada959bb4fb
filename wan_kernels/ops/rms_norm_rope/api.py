"""The public function."""

from torch import Tensor

from wan_kernels.ops.rms_norm_rope import reference


def rms_norm_rope(
    x: Tensor,
    weight: Tensor,
    freqs_t: Tensor,
    freqs_y: Tensor,
    freqs_x: Tensor,
    *,
    num_heads: int,
    grid: tuple[int, int, int],
    eps: float = 1e-6,
) -> Tensor:
    return reference.forward(x, weight, freqs_t, freqs_y, freqs_x, num_heads, grid, eps)
