"""What a call must at least do: arithmetic, and bytes that have to move."""

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class Cost:
    """FLOPs (a multiply-add counts two) and compulsory bytes: every input read once, every output written once."""

    flops: int
    num_bytes: int

    def __add__(self, other: "Cost") -> "Cost":
        return Cost(self.flops + other.flops, self.num_bytes + other.num_bytes)


def num_bytes(*tensors: Tensor | None) -> int:
    """Bytes of the tensors' elements; None counts nothing."""
    return sum(each.numel() * each.element_size() for each in tensors if each is not None)
