"""The grids equal the official code's, digit for digit."""

from itertools import pairwise

import pytest

from wan_model.schedules import make_schedule

# From running the official scheduler files: 50 steps, shift 5.
OFFICIAL_TIMESTEPS = {"unipc": [999, 995, 991, 987], "dpm++": [1000, 995, 991, 987], "euler": [1000, 995, 991, 987]}


@pytest.mark.parametrize("solver", OFFICIAL_TIMESTEPS)
def test_timesteps_equal_the_official_ones(solver):
    schedule = make_schedule(solver, 50, shift=5.0)
    assert list(schedule.timesteps[:4]) == OFFICIAL_TIMESTEPS[solver]
    assert list(schedule.timesteps[-2:]) == [172, 92]
    assert len(schedule.timesteps) == 50


def test_unipc_sigmas_equal_the_official_ones():
    sigmas = make_schedule("unipc", 50, shift=5.0).sigmas
    assert sigmas[0] == pytest.approx(0.999800, abs=5e-7)
    assert sigmas[1] == pytest.approx(0.995732, abs=5e-7)
    assert sigmas[-2] == pytest.approx(0.092507, abs=5e-7)
    assert sigmas[-1] == 0.0
    assert len(sigmas) == 51


# Counts of steps on the high-noise expert, from running the official code: 26 of 40 and 15 of 40.
@pytest.mark.parametrize(("shift", "boundary", "num_high"), [(12.0, 875, 26), (5.0, 900, 15)])
def test_expert_switch_falls_where_the_official_one_does(shift, boundary, num_high):
    timesteps = make_schedule("unipc", 40, shift=shift).timesteps
    assert sum(t >= boundary for t in timesteps) == num_high


@pytest.mark.parametrize("solver", ["unipc", "dpm++", "euler"])
@pytest.mark.parametrize("num_steps", [1, 2, 7])
def test_short_grids_fall_to_zero(solver, num_steps):
    sigmas = make_schedule(solver, num_steps, shift=3.0).sigmas
    assert len(sigmas) == num_steps + 1
    assert all(a > b for a, b in pairwise(sigmas))
    assert sigmas[-1] == 0.0


def test_shift_one_is_linear():
    assert make_schedule("euler", 4, shift=1.0).sigmas == (1.0, 0.75, 0.5, 0.25, 0.0)


@pytest.mark.parametrize(
    ("solver", "num_steps", "shift", "message"),
    [
        ("heun", 10, 5.0, r"^\[solver\] name must be one of unipc, dpm\+\+, euler, got 'heun'$"),
        ("unipc", 0, 5.0, r"^\[schedule\] num_steps must be at least 1, got 0$"),
        ("unipc", 10, 0.0, r"^\[schedule\] shift must be positive, got 0.0$"),
        ("unipc", 10, float("nan"), r"^\[schedule\] shift must be positive, got nan$"),
    ],
)
def test_bad_input_is_one_clear_line(solver, num_steps, shift, message):
    with pytest.raises(ValueError, match=message):
        make_schedule(solver, num_steps, shift=shift)
