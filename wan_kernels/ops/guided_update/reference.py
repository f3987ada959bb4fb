"""guided_update in plain PyTorch: the specification.

Rounding points: none but those of latents' dtype, float32 or float64.
"""

from torch import Tensor

from wan_kernels.common.cost import Cost, num_bytes


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
    """(result, denoised, start); start is empty where there is no base."""
    velocity = positive.to(latents.dtype)
    if negative is not None:
        away = negative.to(latents.dtype)
        velocity = away + guidance_scale * (velocity - away)
    denoised = latents - sigma * velocity
    start = latents if base is None else weighted_sum(base_weights, (base, older, newer, denoised))
    result = weighted_sum(weights, (start, newer, denoised))
    start = latents.flatten()[:0].clone() if base is None else start
    return result.contiguous(), denoised.contiguous(), start.contiguous()


def weighted_sum(weights: list[float], tensors: tuple[Tensor | None, ...]) -> Tensor:
    """The sum of weight * tensor over those that are there, from the first to the last."""
    terms = [weight * each for weight, each in zip(weights, tensors, strict=True) if each is not None]
    return sum(terms[1:], start=terms[0])


def cost(
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
) -> Cost:
    """A multiply-add per tensor of each sum, two for the guidance."""
    history = sum(each is not None for each in (base, older, newer))
    per_element = 4 * (negative is not None) + 2 + 2 * history + 4 + 2 * (base is not None and newer is not None)
    results = num_bytes(latents) * (2 if base is None else 3)
    return Cost(per_element * latents.numel(), num_bytes(positive, negative, latents, base, older, newer) + results)
