"""What a room's CUDA kernel is held to. Its source states the rest."""

from dataclasses import dataclass

from wan_kernels.common.triton import Expectation


@dataclass(frozen=True)
class Block:
    """What the source must compile to, and what a block takes that the compiler does not tell: its warps, and the
    shared memory that it is launched with.
    """

    expects: Expectation
    num_warps: int
    shared_bytes: int = 0


# Rows of elementwise kernels: two blocks of 256 threads to a multiprocessor.
ROWS = Block(Expectation(max_registers=128, min_ctas_per_sm=2), num_warps=8)
