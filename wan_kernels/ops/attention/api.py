"""The public function."""

from torch import Tensor
from torch.nn import functional as F

from wan_kernels.ops.attention import reference


def attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    k_lengths: Tensor | None = None,
    scale: float | None = None,
    return_lse: bool = False,
) -> Tensor | tuple[Tensor, Tensor]:
    if return_lse:
        return reference.forward(q, k, v, k_lengths, scale)
    mask = None if k_lengths is None else reference.key_mask(k_lengths, k.shape[1])
    q, k, v = (each.transpose(1, 2) for each in (q, k, v))
    return F.scaled_dot_product_attention(q, k, v, mask, scale=scale).transpose(1, 2)
