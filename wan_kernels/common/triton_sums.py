"""Gradients that are summed over tokens, the same bits every time: no atomics, two stages.

First each program adds up its own span of tokens in float32 and leaves the sum in a slot of its own; then one kernel
adds the slots in order. With modulation tables, tokens are walked in the order of their rows. A program that comes to
another row begins another sum, in slot `program + row`: along the walk neither goes down and one goes up, so no two
sums meet.
"""

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from wan_kernels.common.triton import Expectation, Launch, num_multiprocessors

# The least tokens of a program: its sum in float32 costs as much as a few of them.
MIN_SPAN = 4
REGISTERS_PER_MULTIPROCESSOR = 65536  # of an H200
SUM_TILE = 64, 32  # slots, columns
EXPECTS = Expectation(max_registers=128)


@dataclass(frozen=True)
class Walk:
    """Which program takes which tokens: places [program * span, (program + 1) * span), and which row is at a place.

    order: the token at each place, None where it is the place itself. rows: the modulation row (counted over the
    batch) at each place, None where each row has equally many places. starts: each row's first place and the end, None
    where that is so.
    """

    num_places: int
    num_rows: int
    span: int
    order: Tensor | None = None
    rows: Tensor | None = None
    starts: Tensor | None = None

    @property
    def num_programs(self) -> int:
        return -(-self.num_places // self.span)

    @property
    def row_length(self) -> int:
        return self.num_places // self.num_rows

    def over_all(self) -> "Walk":
        """The same walk for what all tokens share: one row."""
        return replace(self, num_rows=1, order=None, rows=None, starts=None)

    def args(self) -> dict[str, Any]:
        """Arguments of the kernel that walks."""
        return {
            "order": self.order,
            "rows": self.rows,
            "starts": self.starts,
            "span": self.span,
            "num_places": self.num_places,
            "row_length": self.row_length,
        }

    def slots(self, width: int, device: torch.device, is_needed: bool) -> Tensor | None:
        """Memory for the programs' sums."""
        shape = self.num_programs + self.num_rows - 1, width
        return torch.empty(shape, dtype=torch.float32, device=device) if is_needed else None


def walk(num_places: int, max_programs: int, num_rows: int = 1) -> Walk:
    """Of tokens in order, at least one, where each row has equally many."""
    return Walk(num_places, num_rows, max(MIN_SPAN, -(-num_places // max(1, max_programs))))


def walk_of_tables(x: Tensor, table: Tensor | None, index: Tensor | None, max_programs: int) -> Walk:
    """Of the tokens of x [B, L, D] with a modulation table [B, R, D], if any, and an index [B, L] into it, if any.

    With an index, tokens are walked in the order of their rows. The sort is stable: the same index gives the same sums.
    """
    num_samples, num_tokens = x.shape[:2]
    found = walk(num_samples * num_tokens, max_programs, num_samples if table is not None else 1)
    if table is None or index is None:
        return found
    num_rows = num_samples * table.shape[1]
    first_row = torch.arange(0, num_rows, table.shape[1], device=index.device).unsqueeze(1)
    rows, order = torch.sort((index + first_row).flatten(), stable=True)
    starts = torch.searchsorted(rows, torch.arange(num_rows + 1, device=index.device))
    return replace(found, num_rows=num_rows, order=order, rows=rows, starts=starts)


def resident_programs(device: torch.device, num_warps: int, max_registers: int) -> int:
    """Programs that a GPU holds at a time if registers are what limits them."""
    per_multiprocessor = REGISTERS_PER_MULTIPROCESSOR // (32 * num_warps * max_registers)
    return num_multiprocessors(device) * max(1, per_multiprocessor)


def sum_launches(*sums: tuple[Walk, Tensor | None, Tensor | None]) -> list[Launch]:
    """For each walk, its slots and the gradient [..., width] that is asked for: each row of it from its slots."""
    return [
        sum_launch(walk, slots, gradient)
        for walk, slots, gradient in sums
        if slots is not None and gradient is not None
    ]


def sum_launch(walk: Walk, slots: Tensor, gradient: Tensor) -> Launch:
    width = slots.shape[1]
    num_slots, num_columns = SUM_TILE
    return Launch(
        module="wan_kernels.common.triton_sums_kernel",
        kernel="sum_slots_kernel",
        grid=(walk.num_rows, -(-width // num_columns)),
        args={
            "slots": slots,
            "out": gradient,
            "starts": walk.starts,
            "row_length": walk.row_length,
            "span": walk.span,
            "width": width,
        },
        constants={"SLOTS": num_slots, "COLUMNS": num_columns},
        expects=EXPECTS,
    )
