"""Solvers against Diffusers, against an ODE with a known answer, and against each other."""

import math
from itertools import pairwise

import numpy as np
import pytest
import torch

from wan_model.guidance import predict_both
from wan_model.schedules import make_schedule
from wan_model.solvers import make_solver


def relative_error(actual: torch.Tensor, expected: torch.Tensor) -> float:
    return ((actual - expected).abs().max() / expected.abs().max()).item()


def velocity_field(latents: torch.Tensor, sigma: float) -> torch.Tensor:
    """Smooth, nonlinear, different for every element."""
    return torch.tanh(latents * (1 + sigma)) - 0.3 * latents.roll(1, -1) + sigma


def our_trajectory(name: str, sigmas: list[float], noise: torch.Tensor) -> list[torch.Tensor]:
    solver = make_solver(name, sigmas)
    state, seen = solver.init(noise), []
    for i in range(solver.num_steps):
        state = solver.step(state, i, velocity_field(state.latents, sigmas[i]))
        seen.append(state.latents)
    return seen


def diffusers_trajectory(scheduler, sigmas: list[float], noise: torch.Tensor) -> list[torch.Tensor]:
    """The scheduler's own steps on our noise levels: its grid differs, its formulas are what we compare."""
    scheduler.set_timesteps(len(sigmas) - 1)
    scheduler.sigmas = torch.tensor(sigmas)
    latents, seen = noise, []
    for i, timestep in enumerate(scheduler.timesteps):
        latents = scheduler.step(velocity_field(latents, sigmas[i]), timestep, latents, return_dict=False)[0]
        seen.append(latents)
    return seen


def assert_trajectories_agree(actual, expected):
    assert len(actual) == len(expected)
    for ours, theirs in zip(actual, expected, strict=True):
        assert relative_error(ours, theirs) <= 1e-5


@pytest.mark.parametrize("num_steps", [1, 2, 3, 20, 50])
def test_unipc_trajectory_equals_diffusers(num_steps):
    diffusers = pytest.importorskip("diffusers", reason="diffusers is the other side of this parity test")
    scheduler = diffusers.UniPCMultistepScheduler(
        prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=5.0, solver_order=2, solver_type="bh2"
    )
    sigmas = list(make_schedule("unipc", num_steps, shift=5.0).sigmas)
    noise = torch.randn(2, 4, 3, 5, generator=torch.Generator().manual_seed(0))
    assert_trajectories_agree(our_trajectory("unipc", sigmas, noise), diffusers_trajectory(scheduler, sigmas, noise))


@pytest.mark.parametrize("num_steps", [1, 2, 3, 20, 50])
def test_dpmpp_trajectory_equals_diffusers(num_steps):
    diffusers = pytest.importorskip("diffusers", reason="diffusers is the other side of this parity test")
    scheduler = diffusers.DPMSolverMultistepScheduler(
        prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=5.0, solver_order=2,
        algorithm_type="dpmsolver++", solver_type="midpoint", final_sigmas_type="zero",
    )  # fmt: skip
    sigmas = list(make_schedule("dpm++", num_steps, shift=5.0).sigmas)
    noise = torch.randn(2, 4, 3, 5, generator=torch.Generator().manual_seed(0))
    assert_trajectories_agree(our_trajectory("dpm++", sigmas, noise), diffusers_trajectory(scheduler, sigmas, noise))


MEAN, SPREAD = 0.7, 0.4


def gaussian_velocity(x: torch.Tensor, sigma: float) -> torch.Tensor:
    """The exact velocity when data is normal(MEAN, SPREAD): noise and data expected given their mixture."""
    variance = (1 - sigma) ** 2 * SPREAD**2 + sigma**2
    surprise = (x - (1 - sigma) * MEAN) / variance
    return sigma * surprise - (MEAN + (1 - sigma) * SPREAD**2 * surprise)


def gaussian_flow(x: torch.Tensor, sigma_from: float, sigma_to: float) -> torch.Tensor:
    """Where the exact ODE carries x: a straight rescaling around the moving mean."""
    spread_from, spread_to = (math.hypot((1 - sigma) * SPREAD, sigma) for sigma in (sigma_from, sigma_to))
    return (1 - sigma_to) * MEAN + spread_to / spread_from * (x - (1 - sigma_from) * MEAN)


def global_error(name: str, num_steps: int) -> float:
    sigmas = np.linspace(0.95, 0.1, num_steps + 1).tolist()
    start = torch.linspace(-2, 2, 9, dtype=torch.float64)
    solver = make_solver(name, sigmas)
    state = solver.init(start)
    for i in range(num_steps):
        state = solver.step(state, i, gaussian_velocity(state.latents, sigmas[i]))
    return (state.latents - gaussian_flow(start, sigmas[0], sigmas[-1])).abs().max().item()


@pytest.mark.parametrize(("name", "order"), [("euler", 1), ("dpm++", 2), ("unipc", 2)])
def test_order_of_convergence(name, order):
    errors = [global_error(name, num_steps) for num_steps in (40, 80, 160)]
    orders = [math.log2(coarse / fine) for coarse, fine in pairwise(errors)]
    assert min(orders) > order - 0.2
    if name == "euler":
        assert max(orders) < 1.2


@pytest.mark.parametrize("name", ["unipc", "dpm++", "euler"])
def test_constant_data_is_reached_exactly(name):
    """When the model names the clean sample at once, one step or many end on it."""
    target = torch.tensor([0.5, -2.0, 3.0])
    for num_steps in (1, 2, 5, 12):
        schedule = make_schedule(name, num_steps, shift=5.0)
        solver = make_solver(name, schedule.sigmas)
        state = solver.init(torch.tensor([1.0, -1.0, 0.25]))
        for i in range(solver.num_steps):
            state = solver.step(state, i, (state.latents - target) / schedule.sigmas[i])
        torch.testing.assert_close(state.latents, target, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", ["unipc", "dpm++", "euler"])
def test_pure_noise_start_is_finite(name):
    sigmas = [1.0, 0.9, 0.6, 0.3, 0.0]
    assert all(latents.isfinite().all() for latents in our_trajectory(name, sigmas, torch.ones(2, 3)))


@pytest.mark.parametrize("name", ["unipc", "dpm++", "euler"])
def test_low_precision_velocity_keeps_float32_latents(name):
    solver = make_solver(name, [0.9, 0.5, 0.0])
    state = solver.init(torch.ones(3, dtype=torch.bfloat16))
    for i in range(2):
        state = solver.step(state, i, torch.ones(3, dtype=torch.bfloat16))
        assert state.latents.dtype == torch.float32


def test_steps_leave_their_inputs_alone():
    solver = make_solver("unipc", make_schedule("unipc", 4, shift=5.0).sigmas)
    states = [solver.init(torch.ones(3))]
    for i in range(solver.num_steps):
        states.append(solver.step(states[-1], i, velocity_field(states[-1].latents, 0.5)))
    again = solver.step(states[1], 1, velocity_field(states[1].latents, 0.5))
    assert torch.equal(again.latents, states[2].latents)


@pytest.mark.parametrize("sigmas", [[0.5], [0.5, 0.5], [0.1, 0.5], [1.5, 0.0], [0.5, -0.1]])
def test_bad_noise_levels_are_refused(sigmas):
    with pytest.raises(ValueError, match=r"^\[solver\] sigmas must fall"):
        make_solver("unipc", sigmas)


def test_unknown_solver_is_refused():
    with pytest.raises(ValueError, match=r"^\[solver\] name must be one of"):
        make_solver("ddim", [1.0, 0.0])


@pytest.mark.parametrize("name", ["unipc", "dpm++", "euler"])
def test_guidance_inside_the_step_is_the_official_formula(name):
    """Stepping with both velocities and a scale is stepping with negative + scale * (positive - negative)."""
    sigmas = list(make_schedule("unipc", 5, shift=5.0).sigmas)
    solver = make_solver(name, sigmas)
    noise = torch.randn(2, 16, 3, 5, generator=torch.Generator().manual_seed(0))
    one, other = solver.init(noise), solver.init(noise)
    for i in range(solver.num_steps):
        positive, negative = velocity_field(one.latents, sigmas[i]), velocity_field(one.latents, sigmas[i] + 0.1)
        one = solver.step(one, i, positive, negative, guidance_scale=5.0)
        other = solver.step(other, i, negative + 5.0 * (positive - negative))
        torch.testing.assert_close(one.latents, other.latents, rtol=1e-5, atol=1e-5)


def test_guidance_of_one_runs_no_negative_pass():
    asked = []

    def predict(prompt: str) -> torch.Tensor:
        asked.append(prompt)
        return torch.tensor([float(len(prompt))])

    assert predict_both(predict, "cat", "dog!", scale=1.0) == (torch.tensor([3.0]), None)
    assert asked == ["cat"]
    assert predict_both(predict, "cat", "dog!", scale=2.0) == (torch.tensor([3.0]), torch.tensor([4.0]))
    assert asked == ["cat", "cat", "dog!"]
