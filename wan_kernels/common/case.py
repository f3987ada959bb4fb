"""Cases: named argument lists that tests, benchmarks and the static inspection share, made from a seed."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor


class Inputs:
    """Makes a case's tensors: same seed, same values, on any device. On the meta device they hold shapes only."""

    def __init__(self, dtype: torch.dtype, device: str | torch.device = "cpu", seed: int = 0) -> None:
        self.dtype = dtype
        self.device = torch.device(device)
        self.generator = torch.Generator().manual_seed(seed)

    def normal(self, *shape: int, dtype: torch.dtype | None = None, scale: float = 1.0, mean: float = 0.0) -> Tensor:
        """Normal values in `dtype`, by default the activations'."""
        dtype = dtype or self.dtype
        if self.device.type == "meta":
            return torch.empty(shape, dtype=dtype, device="meta")
        values = torch.randn(shape, generator=self.generator) * scale + mean
        return values.to(dtype).to(self.device)

    def integers(self, *shape: int, low: int = 0, high: int, dtype: torch.dtype = torch.int32) -> Tensor:
        """Integers in [low, high)."""
        if self.device.type == "meta":
            return torch.empty(shape, dtype=dtype, device="meta")
        return torch.randint(low, high, shape, generator=self.generator, dtype=dtype).to(self.device)

    def rotations(self, num_positions: int, num_pairs: int) -> Tensor:
        """A rotary table of one axis: [positions, pairs, 2] float32, (cos, sin), theta 10000."""
        rates = 10000.0 ** (-torch.arange(num_pairs, dtype=torch.float64) / max(num_pairs, 1))
        angles = torch.outer(torch.arange(num_positions, dtype=torch.float64), rates)
        return torch.stack((angles.cos(), angles.sin()), dim=-1).float().to(self.device)


Build = Callable[[Inputs], tuple[Any, ...]]


@dataclass(frozen=True)
class Case:
    """One call: `build` makes all arguments in schema order.

    is_heavy: a real shape, too large to check against float64; benchmarks and the static inspection use it, tests do
    not. floors: a floor of its own in the tolerance rule for (tensor, dtype), with the reason where it is stated.
    min_scale: the least by which floors are scaled, for cases whose truth cancels to zero.
    """

    name: str
    build: Build
    is_heavy: bool = False
    floors: Mapping[tuple[str, torch.dtype], float] = field(default_factory=dict)
    min_scale: float = 0.0

    def args(self, dtype: torch.dtype, device: str | torch.device = "cpu", seed: int = 0) -> tuple[Any, ...]:
        """The arguments, always the same for the same dtype and seed."""
        return self.build(Inputs(dtype, device, seed))


def wan_rotations(inputs: Inputs, head_width: int, num_positions: int = 1024) -> tuple[Tensor, Tensor, Tensor]:
    """The tables of Wan: a third of the pairs each for rows and columns, rounded down, the rest for time."""
    num_side = math.floor(head_width / 2 / 3)
    num_time = head_width // 2 - 2 * num_side
    return (
        inputs.rotations(num_positions, num_time),
        inputs.rotations(num_positions, num_side),
        inputs.rotations(num_positions, num_side),
    )
