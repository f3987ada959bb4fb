"""The public function."""

from torch import Tensor

from wan_kernels.ops.causal_conv3d import reference


def causal_conv3d(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    cache: Tensor | None = None,
    *,
    stride: tuple[int, int, int] = (1, 1, 1),
    padding: tuple[int, int, int, int] = (0, 0, 0, 0),
    return_cache: bool = False,
) -> Tensor | tuple[Tensor, Tensor]:
    y, new_cache = reference.forward(x, weight, bias, cache, list(stride), list(padding), return_cache)
    return (y, new_cache) if return_cache else y
