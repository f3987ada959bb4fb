"""In which of two orders a tensor [B, C, ...] lies in memory: contiguous or channels-last."""

import torch
from torch import Tensor


def dense(x: Tensor) -> Tensor:
    """x itself, or a copy without the gaps of a slice."""
    return x.contiguous(memory_format=layout_of(x) or torch.contiguous_format)


def layout_of(x: Tensor) -> torch.memory_format | None:
    """Which of the two layouts x is in, gaps allowed."""
    if x.is_contiguous():
        return torch.contiguous_format
    steps = list(zip(x.stride(), x.shape, strict=True))
    if _descends(steps):
        return torch.contiguous_format
    if x.dim() in (4, 5) and _descends([steps[0], *steps[2:], steps[1]]):
        return torch.channels_last_3d if x.dim() == 5 else torch.channels_last
    return None


def _descends(steps: list[tuple[int, int]]) -> bool:
    """Whether each (stride, size) steps over the whole of the next; sizes of 1 do not count."""
    reach = 0
    for step, size in reversed(steps):
        if size == 1:
            continue
        if step <= reach:
            return False
        reach = step * (size - 1)
    return True
