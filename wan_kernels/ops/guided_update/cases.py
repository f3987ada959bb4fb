"""Real shapes of Wan, odd shapes, extremes."""

from typing import Any

import torch

from wan_kernels.common.case import Build, Case, Inputs

# UniPC's corrector and predictor of order 2 in the middle of 50 steps at shift 5.
CORRECTOR, PREDICTOR = [0.9784, -0.0031, 0.0142, 0.0105], [0.9742, -0.0121, 0.0379]
EULER = [0.9784, 0.0, 0.0216]


def step(
    *shape: int,
    is_guided: bool = True,
    num_past: int = 2,
    base_weights: list[float] = CORRECTOR,
    weights: list[float] = PREDICTOR,
    scale: float = 1.0,
) -> Build:
    """A step with a base and `num_past` clean samples; without any past, and without a base, where it is -1."""

    def build(make: Inputs) -> tuple[Any, ...]:
        positive = make.normal(*shape, scale=scale)
        negative = make.normal(*shape, scale=scale) if is_guided else None
        latents, base, older, newer = (make.normal(*shape, dtype=torch.float32, scale=scale) for _ in range(4))
        past = (base if num_past >= 0 else None, older if num_past > 1 else None, newer if num_past > 0 else None)
        return positive, negative, latents, *past, 5.0, 0.83, base_weights, weights

    return build


def plus_plus(make: Inputs) -> tuple[Any, ...]:
    """DPM++ 2M: no base, and one clean sample before this one."""
    positive, negative = (make.normal(2, 16, 3, 5, 7) for _ in range(2))
    latents, newer = (make.normal(2, 16, 3, 5, 7, dtype=torch.float32) for _ in range(2))
    return positive, negative, latents, None, None, newer, 4.0, 0.5, CORRECTOR, PREDICTOR


def joint(make: Inputs) -> tuple[Any, ...]:
    """Both velocities as halves of one batch, and latents with a stride."""
    positive, negative = make.normal(4, 16, 3, 6, 6).chunk(2)
    latents, base, newer = (make.normal(2, 3, 16, 6, 6, dtype=torch.float32).transpose(1, 2) for _ in range(3))
    return positive, negative, latents, base, None, newer, 5.0, 0.83, CORRECTOR, PREDICTOR


CASES = (
    Case("720p_81f_unipc", step(1, 16, 21, 90, 160), is_heavy=True),
    Case("720p_81f_euler", step(1, 16, 21, 90, 160, num_past=-1, weights=EULER), is_heavy=True),
    Case("unipc", step(1, 16, 5, 12, 12)),
    Case("unipc_second_step", step(1, 16, 5, 12, 12, num_past=1)),
    Case("euler", step(2, 16, 3, 5, 7, num_past=-1, weights=EULER)),
    Case("dpm_plus_plus", plus_plus),
    Case("not_guided", step(3, 127, is_guided=False)),
    Case("joint", joint),
    Case("one_element", step(1)),
    Case("scalar", step()),
    Case("empty", step(2, 0, 3)),
    Case("large_values", step(2, 129, scale=1e12)),
)
