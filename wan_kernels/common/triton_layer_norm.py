"""What the launches of every room with a LayerNorm share: its arguments, and what it must compile to."""

from typing import Any

from torch import Tensor

from wan_kernels.common.triton import Expectation, with_dense_rows
from wan_kernels.common.triton_rows import modulation_args

# Two programs of 8 warps on a multiprocessor, the row in registers.
EXPECTS = Expectation(max_registers=128, min_ctas_per_sm=2, mnemonics=("SHFL",))


def norm_args(
    x: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    index: Tensor | None,
    eps: float,
    **tables: Tensor | None,
) -> dict[str, Any]:
    """Arguments for x [B, L, D], weight and bias [D], index [B, L] and the tables [B, R, D] by their names."""
    args = {
        "weight": with_dense_rows(weight),
        "bias": with_dense_rows(bias),
        "num_tokens": x.shape[1],
        "width": x.shape[2],
        "eps": eps,
    }
    return args | modulation_args(index, **tables)
