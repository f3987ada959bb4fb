"""ODE solvers for flow matching: pure steps from one noise level to the next.

    solver = make_solver("unipc", make_schedule("unipc", 50, shift=5.0).sigmas)
    state = solver.init(noise)
    for i in range(solver.num_steps):
        state = solver.step(state, i, model(state.latents, ...))  # and the negative prompt's velocity, with a scale
    result = state.latents

With velocity v = noise - data, the clean sample a model sees is x0 = x - sigma * v. UniPC and DPM++ integrate x0 over
half the log signal-to-noise ratio lambda = log((1 - sigma) / sigma), where the linear part of the ODE is exact:
a step over h = lambda_t - lambda_s is x_t = (sigma_t / sigma_s) * x_s - alpha_t * expm1(-h) * (x0 + corrections).

So each step is a sum of tensors whose weights are known beforehand: float64 on the host, and one fused pass over the
latents, guidance included, in at least float32. Latents of any shape.
Sources: UniPC, arXiv 2302.04867 (B2, order 2); DPM-Solver++ 2M, arXiv 2211.01095 (midpoint); the order of the first
and last steps as in Wan2.1 `utils/fm_solvers_unipc.py` and `utils/fm_solvers.py` at 9737cba.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

import wan_kernels as wk
from wan_model.schedules import SolverName, check_solver

NO_BASE = (1.0, 0.0, 0.0, 0.0)


@dataclass(frozen=True)
class SolverState:
    """Where a trajectory stands: the sample to show the model next, and what later steps need of the past.

    base: the sample the last step left from, corrected. denoised: the model's clean samples, at most two, newest last.
    """

    latents: Tensor
    base: Tensor | None = None
    denoised: tuple[Tensor, ...] = ()


@dataclass(frozen=True)
class Weights:
    """A step as sums of tensors: see `wan_kernels.guided_update`.

    start: of (base, denoised before the last, last denoised, denoised), for the sample to leave from; None: from the
    sample that the model saw. result: of (start, last denoised, denoised).
    """

    result: tuple[float, float, float]
    start: tuple[float, float, float, float] | None = None


@dataclass(frozen=True)
class Solver:
    """A grid of noise levels and the rule that steps along it."""

    grid: "Grid"
    weights: Callable[["Grid", int], Weights]

    @property
    def num_steps(self) -> int:
        return len(self.grid.sigmas) - 1

    def init(self, latents: Tensor) -> SolverState:
        """State before the first step; `latents` is the noise."""
        return SolverState(latents.to(torch.promote_types(latents.dtype, torch.float32)))

    def step(
        self,
        state: SolverState,
        i: int,
        velocity: Tensor,
        negative: Tensor | None = None,
        *,
        guidance_scale: float = 1.0,
    ) -> SolverState:
        """From sigmas[i] to sigmas[i + 1], given the model's velocity at `state.latents`. Steps go in order from 0.

        negative: the velocity under the negative prompt, to be guided away from with `guidance_scale`.
        """
        weights = self.weights(self.grid, i)
        latents, denoised, base = wk.guided_update(
            velocity,
            negative,
            state.latents,
            *history(state, weights),
            guidance_scale=guidance_scale,
            sigma=self.grid.sigmas[i],
            base_weights=weights.start or NO_BASE,
            weights=weights.result,
        )
        start = state.latents if base is None else base
        return SolverState(latents, base=start, denoised=(*state.denoised, denoised)[-2:])


def history(state: SolverState, weights: Weights) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
    """Of (base, clean sample before the last, last clean sample) those that have a weight: the rest need no reading."""
    older, newer = (None, None, *state.denoised)[-2:]
    if weights.start is None:
        return None, None, newer if weights.result[1] else None
    return state.base, older if weights.start[1] else None, newer


def make_solver(name: SolverName, sigmas: Sequence[float]) -> Solver:
    """The solver `name` on noise levels `sigmas`, falling from at most 1 to at least 0.

    Raises: ValueError for an unknown name, or levels that do not fall inside [0, 1].
    """
    check_solver(name)
    levels = tuple(float(sigma) for sigma in sigmas)
    falls = all(before > after for before, after in pairwise(levels))
    if len(levels) < 2 or not falls or levels[0] > 1 or levels[-1] < 0:
        raise ValueError(f"[solver] sigmas must fall from at most 1 to at least 0, got {list(levels)}")
    weights = {"unipc": _unipc_weights, "dpm++": _dpmpp_weights, "euler": _euler_weights}[name]
    return Solver(Grid(levels), weights)


@dataclass(frozen=True)
class Grid:
    """Noise levels, with the quantities the exponential integrators ask of them."""

    sigmas: tuple[float, ...]

    def lambda_(self, i: int) -> float:
        """log((1 - sigma) / sigma); minus infinity on pure noise, plus infinity on clean data."""
        sigma = self.sigmas[i]
        if sigma in (0.0, 1.0):
            return math.inf if sigma == 0 else -math.inf
        return math.log((1 - sigma) / sigma)

    def slope(self, i: int, j: int, k: int) -> float:
        """(lambda_k - lambda_j) / (lambda_j - lambda_i): step j -> k in units of the step before it.

        0 where the earlier step started from pure noise, infinitely far away.
        """
        return (self.lambda_(k) - self.lambda_(j)) / (self.lambda_(j) - self.lambda_(i))

    def step_order(self, i: int) -> int:
        """Second order, but first order where no history exists yet and where the grid ends."""
        return 1 if i in (0, len(self.sigmas) - 2) else 2

    def shrinkage(self, i: int) -> float:
        """sigma_t / sigma_s of step i: how much of the sample stays."""
        return self.sigmas[i + 1] / self.sigmas[i]

    def gain(self, i: int) -> float:
        """-alpha_t * expm1(-h) of step i: how far the sample moves per unit of clean sample."""
        return -(1 - self.sigmas[i + 1]) * math.expm1(self.lambda_(i) - self.lambda_(i + 1))


def _euler_weights(grid: Grid, i: int) -> Weights:
    """x + (sigma_t - sigma_s) * v, with v = (x - x0) / sigma_s."""
    stays = grid.shrinkage(i)
    return Weights((stays, 0.0, 1 - stays))


def _dpmpp_weights(grid: Grid, i: int) -> Weights:
    return Weights(_predictor(grid, i))


def _unipc_weights(grid: Grid, i: int) -> Weights:
    # The corrector redoes the step that led here, now that the model has seen where it led.
    return Weights(_predictor(grid, i), start=None if i == 0 else _corrector(grid, i - 1))


def _predictor(grid: Grid, i: int) -> tuple[float, float, float]:
    """x0 extrapolated half a step ahead from the last two. UniPC's B2 predictor of order 2 and DPM++ 2M are one."""
    ahead = 0.0 if grid.step_order(i) == 1 else 0.5 * grid.slope(i - 1, i, i + 1)
    return grid.shrinkage(i), -grid.gain(i) * ahead, grid.gain(i) * (1 + ahead)


def _corrector(grid: Grid, i: int) -> tuple[float, float, float, float]:
    """Step i again, with x0 interpolated through its end, its start, and (order 2) the step before."""
    past, end = (0.0, 0.5) if grid.step_order(i) == 1 else _corrector_weights(grid, i)
    gain = grid.gain(i)
    return grid.shrinkage(i), gain * past, gain * (1 - past - end), gain * end


def _corrector_weights(grid: Grid, i: int) -> tuple[float, float]:
    """Weights of the clean samples' differences, to the one before and the one after: equations 5 to 9 of the paper.

    With r = (lambda_{i-1} - lambda_i) / h they solve past * r + present = b1 and past * r^2 + present = b2.
    """
    h = grid.lambda_(i + 1) - grid.lambda_(i)
    phi_1 = math.expm1(-h)
    phi_2 = phi_1 / -h - 1
    phi_3 = phi_2 / -h - 0.5
    b1, b2 = phi_2 / phi_1, 2 * phi_3 / phi_1
    inverse_r = -grid.slope(i - 1, i, i + 1)
    if inverse_r == 0:
        return 0.0, b1
    r = 1 / inverse_r
    rho = (b1 - b2) / (1 - r)
    return rho / r, b1 - rho
