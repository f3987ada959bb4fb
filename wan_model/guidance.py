"""Classifier-free guidance: push the prediction away from the negative prompt.

The push itself is a part of the solver's step, `wan_kernels.guided_update`.
"""

from collections.abc import Callable
from typing import TypeVar

from torch import Tensor

Condition = TypeVar("Condition")


def predict_both(
    predict: Callable[[Condition], Tensor], positive: Condition, negative: Condition, *, scale: float
) -> tuple[Tensor, Tensor | None]:
    """`predict` under both conditions; at scale 1 the negative one cancels out and is not run.

    Source: arXiv 2207.12598, in the form of Wan2.1: negative + scale * (positive - negative).
    """
    return predict(positive), None if scale == 1 else predict(negative)
