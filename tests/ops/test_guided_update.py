"""What is special to guided_update."""

import re

import pytest
import torch

import wan_kernels as wk


def test_is_a_step_of_euler() -> None:
    latents, velocity = torch.randn(2, 5), torch.randn(2, 5)
    result, denoised, start = wk.guided_update(velocity, None, latents, sigma=0.8, weights=(0.75, 0.0, 0.25))
    assert start is None
    torch.testing.assert_close(denoised, latents - 0.8 * velocity)
    torch.testing.assert_close(result, latents + (0.6 - 0.8) * velocity)


def test_the_gradient_flows_through_the_step() -> None:
    """For objectives on samples: the result is linear in the velocity, by -sigma * guidance_scale * weights[2]."""
    latents = torch.randn(3, 4)
    positive, negative = (torch.randn(3, 4, requires_grad=True) for _ in range(2))
    result, _, _ = wk.guided_update(
        positive, negative, latents, guidance_scale=4.0, sigma=0.5, weights=(0.75, 0.0, 0.25)
    )
    result.sum().backward()
    torch.testing.assert_close(positive.grad, torch.full((3, 4), -0.5 * 4.0 * 0.25))
    torch.testing.assert_close(negative.grad, torch.full((3, 4), -0.5 * -3.0 * 0.25))


def test_refuses() -> None:
    x = torch.ones(2, 3)
    with pytest.raises(TypeError, match=re.escape("[guided_update] latents must be one of float32, float64, got bf")):
        wk.guided_update(x, None, x.bfloat16(), sigma=0.5, weights=(1, 0, 0))
    with pytest.raises(ValueError, match=re.escape("[guided_update] negative must have shape (2, 3), got (3, 2)")):
        wk.guided_update(x, x.T, x, sigma=0.5, weights=(1, 0, 0))
    with pytest.raises(TypeError, match=re.escape("[guided_update] newer must be float32 as its fellows are, got f")):
        wk.guided_update(x, None, x, None, None, x.double(), sigma=0.5, weights=(1, 0, 0))
    with pytest.raises(ValueError, match=re.escape("[guided_update] weights must be 3 numbers, got 2")):
        wk.guided_update(x, None, x, sigma=0.5, weights=(1, 0))
