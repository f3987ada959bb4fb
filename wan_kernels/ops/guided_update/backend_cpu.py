"""guided_update through the C library."""

import torch
from torch import Tensor

from wan_kernels import native
from wan_kernels.common.cpu import reject_tensors
from wan_kernels.dispatch import register_backend

NAME = "guided_update"


def forward(
    positive: Tensor,
    negative: Tensor | None,
    latents: Tensor,
    base: Tensor | None,
    older: Tensor | None,
    newer: Tensor | None,
    guidance_scale: float,
    sigma: float,
    base_weights: list[float],
    weights: list[float],
) -> tuple[Tensor, Tensor, Tensor]:
    result, denoised = torch.empty(latents.shape), torch.empty(latents.shape)
    start = torch.empty(0 if base is None else latents.shape)
    inputs = (None if each is None else each.reshape(-1) for each in (positive, negative, latents, base, older, newer))
    outputs = (result.view(-1), denoised.view(-1), None if base is None else start.view(-1))
    native.library().guided_update(*outputs, *inputs, guidance_scale, sigma, base_weights, weights)
    return result, denoised, start


def reject(
    positive: Tensor,
    negative: Tensor | None,
    latents: Tensor,
    base: Tensor | None,
    older: Tensor | None,
    newer: Tensor | None,
    guidance_scale: float,
    sigma: float,
    base_weights: list[float],
    weights: list[float],
) -> str | None:
    return reject_tensors(positive, negative, latents, base, older, newer)


register_backend(NAME, "cpu", forward=forward, available=native.cpu_unavailable, reject=reject)
