"""guided_update in one Triton kernel. Experimental until a hardware record shows that it passes: it runs only when
forced."""

import torch
from torch import Tensor

from wan_kernels import records
from wan_kernels.common.triton import Expectation, Launch, reject_tensors, running, unavailable
from wan_kernels.dispatch import register_backend

NAME = "guided_update"
# 8 values a thread: 16-byte loads of 16-bit velocities.
BLOCK, NUM_WARPS = 1024, 4
EXPECTS = Expectation(max_registers=64, min_ctas_per_sm=8)


def prepare(
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
) -> tuple[tuple[Tensor, Tensor, Tensor], list[Launch]]:
    """The outputs, and what fills them."""
    result, denoised = (torch.empty(latents.shape, dtype=latents.dtype, device=latents.device) for _ in range(2))
    start = latents.new_empty(0 if base is None else latents.shape)
    if latents.numel() == 0:
        return (result, denoised, start), []
    inputs = {"positive": positive, "negative": negative, "latents": latents}
    history = {"base": base, "older": older, "newer": newer}
    of_base, of_older, of_newer, of_denoised = base_weights
    by_start, by_newer, by_denoised = weights
    args = {
        "result": result,
        "denoised": denoised,
        "start": None if base is None else start,
        **{name: None if each is None else each.contiguous() for name, each in (inputs | history).items()},
        "num_elements": latents.numel(),
        "guidance_scale": guidance_scale,
        "sigma": sigma,
        "of_base": of_base,
        "of_older": of_older,
        "of_newer": of_newer,
        "of_denoised": of_denoised,
        "by_start": by_start,
        "by_newer": by_newer,
        "by_denoised": by_denoised,
    }
    launch = Launch(
        module="wan_kernels.ops.guided_update.kernels_triton",
        kernel="guided_update_fwd_kernel",
        grid=(-(-latents.numel() // BLOCK),),
        args=args,
        constants={"BLOCK": BLOCK},
        expects=EXPECTS,
        num_warps=NUM_WARPS,
    )
    return (result, denoised, start), [launch]


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


register_backend(
    NAME,
    "triton",
    forward=running(prepare),
    available=unavailable,
    reject=reject,
    unproven=lambda: records.unproven(NAME, "triton"),
)
