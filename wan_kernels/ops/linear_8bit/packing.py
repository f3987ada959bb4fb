"""The layout of a weight that CPU kernels multiply fastest: what 16 columns need next lies side by side."""

from torch import Tensor
from torch.nn import functional as F

GROUP, QUAD = 16, 4


def pack(weight: Tensor) -> Tensor:
    """[N, K] int8 -> [ceil(N / 16), ceil(K / 4), 16, 4]: packed[n / 16, k / 4, n % 16, k % 4], zeros elsewhere."""
    num_columns, width = weight.shape
    padded = F.pad(weight, (0, -width % QUAD, 0, -num_columns % GROUP))
    return padded.unflatten(1, (-1, QUAD)).unflatten(0, (-1, GROUP)).transpose(1, 2).contiguous()


def unpack(packed: Tensor, num_columns: int, width: int) -> Tensor:
    """The [N, K] that `pack` packed."""
    return packed.transpose(1, 2).flatten(2).flatten(0, 1)[:num_columns, :width]


def is_packed(weight: Tensor) -> bool:
    """Whether this is what `pack` made, not an [N, K]."""
    return weight.dim() == 4


def packed_shape(num_columns: int, width: int) -> tuple[int, int, int, int]:
    return -(-num_columns // GROUP), -(-width // QUAD), GROUP, QUAD
