"""Classifier-free guidance: push the prediction away from the negative prompt."""

from collections.abc import Callable
from typing import TypeVar

from torch import Tensor

Condition = TypeVar("Condition")


def apply_guidance(positive: Tensor, negative: Tensor, *, scale: float) -> Tensor:
    """negative + scale * (positive - negative).

    positive, negative: velocities of one shape, float32. Source: arXiv 2207.12598, in the form of Wan2.1.
    """
    return negative + scale * (positive - negative)


def guide(predict: Callable[[Condition], Tensor], positive: Condition, negative: Condition, *, scale: float) -> Tensor:
    """Guided velocity from `predict(condition)`; at scale 1 the negative pass cancels out and is not run."""
    if scale == 1:
        return predict(positive)
    return apply_guidance(predict(positive), predict(negative), scale=scale)
