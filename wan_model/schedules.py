"""The noise levels a sampler visits.

A sample at noise level sigma is `(1 - sigma) * data + sigma * noise`; sigma runs from about 1 down to exactly 0.
Everything here is a host number: a sampling loop never waits for the device to learn where it is.
Source: Wan2.1 `utils/fm_solvers_unipc.py` and `utils/fm_solvers.py` at 9737cba.
"""

from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np

SolverName = Literal["unipc", "dpm++", "euler"]

NUM_TRAIN_TIMESTEPS = 1000

# UniPC starts one training step below pure noise. The official code keeps the bound in float32.
_FIRST_SIGMA = {"unipc": float(np.float32(0.999)), "dpm++": 1.0, "euler": 1.0}


@dataclass(frozen=True)
class Schedule:
    """`sigmas`: num_steps + 1 values rounded to float32, the last 0; `timesteps`: num_steps integers in [0, 1000]."""

    sigmas: tuple[float, ...]
    timesteps: tuple[int, ...]


def shift_sigma(sigma: np.ndarray, shift: float) -> np.ndarray:
    """s' = shift * s / (1 + (shift - 1) * s): spends more steps on noisy samples when shift > 1."""
    return shift * sigma / (1 + (shift - 1) * sigma)


def make_schedule(solver: SolverName, num_steps: int, *, shift: float) -> Schedule:
    """The grid the official code gives this solver: linear, without its last point, shifted, then 0.

    num_steps: at least 1. shift: above 0; 1 leaves the grid linear.
    Numerics: float64, sigmas rounded to float32, timesteps truncated from the float64 value of 1000 * sigma.
    Raises: ValueError for an unknown solver, fewer than one step, or a shift that is not positive.
    """
    check_solver(solver)
    if num_steps < 1:
        raise ValueError(f"[schedule] num_steps must be at least 1, got {num_steps}")
    if not 0 < shift < float("inf"):
        raise ValueError(f"[schedule] shift must be positive, got {shift}")
    sigmas = shift_sigma(np.linspace(_FIRST_SIGMA[solver], 0, num_steps + 1)[:-1], shift)
    timesteps = (sigmas * NUM_TRAIN_TIMESTEPS).astype(np.int64)
    return Schedule(
        sigmas=(*sigmas.astype(np.float32).tolist(), 0.0),
        timesteps=tuple(timesteps.tolist()),
    )


def check_solver(name: str) -> None:
    """Raise ValueError where no solver has this name."""
    if name not in get_args(SolverName):
        raise ValueError(f"[solver] name must be one of {', '.join(get_args(SolverName))}, got {name!r}")
