"""The launch of the row quantiser: `quantize_rows` is it alone, other rooms end with it."""

from torch import Tensor

from wan_kernels.common.quantize import LIMITS
from wan_kernels.common.triton import Expectation, Launch, as_rows, next_power_of_2
from wan_kernels.common.triton_rows import MAX_BLOCK, row_warps

LOOP_BLOCK = 4096
# 128 registers leave two programs of 8 warps to a multiprocessor, and enough bytes in flight.
EXPECTS = Expectation(max_registers=128, min_ctas_per_sm=2, mnemonics=("SHFL",))


def quantize_launch(x: Tensor, codes: Tensor, scale: Tensor) -> Launch:
    """x [..., D] into codes [..., D] and scale [...], both contiguous; x must not be empty in its leading dims."""
    rows = as_rows(x)
    width = rows.shape[1]
    is_one_block = width <= MAX_BLOCK
    block = next_power_of_2(width) if is_one_block else LOOP_BLOCK
    return Launch(
        module="wan_kernels.common.triton_quantize_kernel",
        kernel="quantize_rows_fwd_kernel",
        grid=(rows.shape[0],),
        args={"x": rows, "codes": codes, "scales": scale, "row_stride": rows.stride(0), "width": width},
        constants={"LIMIT": LIMITS[codes.dtype], "BLOCK": block, "IS_ONE_BLOCK": is_one_block},
        expects=EXPECTS,
        num_warps=row_warps(block),
    )
