"""ODE solvers for flow matching: pure steps from one noise level to the next.

    solver = make_solver("unipc", make_schedule("unipc", 50, shift=5.0).sigmas)
    state = solver.init(noise)
    for i in range(solver.num_steps):
        state = solver.step(state, i, model(state.latents, ...))
    result = state.latents

With velocity v = noise - data, the clean sample a model sees is x0 = x - sigma * v. UniPC and DPM++ integrate x0 over
half the log signal-to-noise ratio lambda = log((1 - sigma) / sigma), where the linear part of the ODE is exact:
a step over h = lambda_t - lambda_s is x_t = (sigma_t / sigma_s) * x_s - alpha_t * expm1(-h) * (x0 + corrections).

Coefficients are float64 on the host; sums of tensors are at least float32. Latents of any shape.
Sources: UniPC, arXiv 2302.04867 (B2, order 2); DPM-Solver++ 2M, arXiv 2211.01095 (midpoint); the order of the first
and last steps as in Wan2.1 `utils/fm_solvers_unipc.py` and `utils/fm_solvers.py` at 9737cba.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

from wan_model.schedules import SolverName, check_solver


@dataclass(frozen=True)
class SolverState:
    """Where a trajectory stands: the sample to show the model next, and what later steps need of the past.

    base: the sample the last step left from. denoised: the model's clean samples, at most two, newest last.
    """

    latents: Tensor
    base: Tensor | None = None
    denoised: tuple[Tensor, ...] = ()


@dataclass(frozen=True)
class Solver:
    """A grid of noise levels and the rule that steps along it."""

    grid: "Grid"
    advance: Callable[["Grid", int, SolverState, Tensor], SolverState]

    @property
    def num_steps(self) -> int:
        return len(self.grid.sigmas) - 1

    def init(self, latents: Tensor) -> SolverState:
        """State before the first step; `latents` is the noise."""
        return SolverState(latents.to(torch.promote_types(latents.dtype, torch.float32)))

    def step(self, state: SolverState, i: int, velocity: Tensor) -> SolverState:
        """From sigmas[i] to sigmas[i + 1], given the model's velocity at `state.latents`. Steps go in order from 0."""
        return self.advance(self.grid, i, state, velocity.to(state.latents.dtype))


def make_solver(name: SolverName, sigmas: Sequence[float]) -> Solver:
    """The solver `name` on noise levels `sigmas`, falling from at most 1 to at least 0.

    Raises: ValueError for an unknown name, or levels that do not fall inside [0, 1].
    """
    check_solver(name)
    levels = tuple(float(sigma) for sigma in sigmas)
    falls = all(before > after for before, after in pairwise(levels))
    if len(levels) < 2 or not falls or levels[0] > 1 or levels[-1] < 0:
        raise ValueError(f"[solver] sigmas must fall from at most 1 to at least 0, got {list(levels)}")
    advance = {"unipc": _unipc_step, "dpm++": _dpmpp_step, "euler": _euler_step}[name]
    return Solver(Grid(levels), advance)


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

    def exponential_step(self, i: int, base: Tensor, denoised: Tensor) -> Tensor:
        """From sigmas[i] to sigmas[i + 1] with the clean sample held at `denoised`."""
        sigma_s, sigma_t = self.sigmas[i], self.sigmas[i + 1]
        return (sigma_t / sigma_s) * base + self.gain(i) * denoised

    def gain(self, i: int) -> float:
        """-alpha_t * expm1(-h) of step i: how far the sample moves per unit of clean sample."""
        return -(1 - self.sigmas[i + 1]) * math.expm1(self.lambda_(i) - self.lambda_(i + 1))


def _denoise(grid: Grid, i: int, state: SolverState, velocity: Tensor) -> Tensor:
    return state.latents - grid.sigmas[i] * velocity


def _euler_step(grid: Grid, i: int, state: SolverState, velocity: Tensor) -> SolverState:
    return SolverState(state.latents + (grid.sigmas[i + 1] - grid.sigmas[i]) * velocity)


def _dpmpp_step(grid: Grid, i: int, state: SolverState, velocity: Tensor) -> SolverState:
    denoised = (*state.denoised, _denoise(grid, i, state, velocity))[-2:]
    return SolverState(_predict(grid, i, state.latents, denoised), denoised=denoised)


def _unipc_step(grid: Grid, i: int, state: SolverState, velocity: Tensor) -> SolverState:
    now = _denoise(grid, i, state, velocity)
    # The corrector redoes the step that led here, now that the model has seen where it led.
    base = state.latents if state.base is None else _correct(grid, i - 1, state.base, state.denoised, now)
    denoised = (*state.denoised, now)[-2:]
    return SolverState(_predict(grid, i, base, denoised), base=base, denoised=denoised)


def _predict(grid: Grid, i: int, base: Tensor, denoised: tuple[Tensor, ...]) -> Tensor:
    """x0 extrapolated half a step ahead from the last two. UniPC's B2 predictor of order 2 and DPM++ 2M are one."""
    latents = grid.exponential_step(i, base, denoised[-1])
    if grid.step_order(i) == 1:
        return latents
    ahead = 0.5 * grid.slope(i - 1, i, i + 1)
    return latents + grid.gain(i) * ahead * (denoised[-1] - denoised[-2])


def _correct(grid: Grid, i: int, base: Tensor, denoised: tuple[Tensor, ...], now: Tensor) -> Tensor:
    """Step i again, with x0 interpolated through its end `now`, its start, and (order 2) the step before."""
    latents = grid.exponential_step(i, base, denoised[-1])
    if grid.step_order(i) == 1:
        return latents + grid.gain(i) * 0.5 * (now - denoised[-1])
    past, present = _corrector_weights(grid, i)
    return latents + grid.gain(i) * (past * (denoised[-2] - denoised[-1]) + present * (now - denoised[-1]))


def _corrector_weights(grid: Grid, i: int) -> tuple[float, float]:
    """Weights of the differences to the sample before and to the sample after: equations 5 to 9 of the paper.

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
