"""What training minimises: the VAE's reconstruction terms and the DiT's flow matching. Pure functions."""

import torch
import torch.nn.functional as F
from torch import Tensor

from wan_model.training.recipe import Recipe


def kl_divergence(mean: Tensor, log_variance: Tensor) -> Tensor:
    """KL from N(mean, exp(log_variance)) to N(0, 1), averaged over elements."""
    return 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance).mean()


def sample_posterior(mean: Tensor, log_variance: Tensor, generator: torch.Generator) -> Tensor:
    noise = torch.randn(mean.shape, generator=generator, dtype=mean.dtype)
    return mean + (0.5 * log_variance).exp() * noise


def vae_terms(output: Tensor, target: Tensor, mean: Tensor, log_variance: Tensor) -> dict[str, Tensor]:
    """The terms of the VAE loss on [B, 3, T, Y, X] clips, unweighted.

    Plain L1 lets small moving things vanish: they are few pixels, and grey is a cheap answer. The gradients in space
    (edges) and the differences in time (motion) are where those pixels are.
    """
    error = output - target
    edges = (error.diff(dim=-1).abs().mean() + error.diff(dim=-2).abs().mean()) / 2
    motion = error.diff(dim=2).abs().mean() if error.shape[2] > 1 else error.new_zeros(())
    kl = kl_divergence(mean, log_variance)
    return {"l1": error.abs().mean(), "squared": error.square().mean(), "edges": edges, "motion": motion, "kl": kl}


def weigh(terms: dict[str, Tensor], recipe: Recipe) -> Tensor:
    return torch.stack([getattr(recipe, name) * term for name, term in terms.items()]).sum()


def logit_normal_sigmas(count: int, mean: float, std: float, generator: torch.Generator) -> Tensor:
    """Noise levels in (0, 1): the sigmoid of N(mean, std), stratified so that a batch covers the range evenly."""
    quantiles = (torch.arange(count) + torch.rand(count, generator=generator)) / count
    return torch.sigmoid(mean + std * torch.special.ndtri(quantiles.clamp(1e-4, 1 - 1e-4)))


def flow_matching_pair(latents: Tensor, sigmas: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
    """Noisy latents (1 - sigma) x + sigma noise, and the velocity the DiT must predict there, noise - x."""
    sigma = sigmas.view(-1, *[1] * (latents.ndim - 1))
    return torch.lerp(latents, noise, sigma), noise - latents


def flow_matching_loss(prediction: Tensor, target: Tensor) -> Tensor:
    return F.mse_loss(prediction.float(), target)
