"""The public function and its op."""

from collections.abc import Sequence

import torch
from torch import Tensor

from wan_kernels.common.checks import check_same_device, check_shape, check_tensor, short
from wan_kernels.define_op import define_op
from wan_kernels.ops.guided_update import reference

NAME = "guided_update"
OP = define_op(
    "guided_update(Tensor positive, Tensor? negative, Tensor latents, Tensor? base, Tensor? older, Tensor? newer, "
    "float guidance_scale, float sigma, float[] base_weights, float[] weights) -> (Tensor, Tensor, Tensor)",
    reference,
)


def guided_update(
    positive: Tensor,
    negative: Tensor | None,
    latents: Tensor,
    base: Tensor | None = None,
    older: Tensor | None = None,
    newer: Tensor | None = None,
    *,
    guidance_scale: float = 1.0,
    sigma: float,
    base_weights: Sequence[float] = (1.0, 0.0, 0.0, 0.0),
    weights: Sequence[float],
) -> tuple[Tensor, Tensor, Tensor | None]:
    """What a linear multistep solver does between two forwards of the model, guidance included.

        velocity = negative + guidance_scale * (positive - negative)
        denoised = latents - sigma * velocity
        start    = base_weights . (base, older, newer, denoised), or latents where base is None
        result   = weights . (start, newer, denoised)

    The weights hold the solver: UniPC's corrector is in `base_weights`, its predictor, DPM++ 2M and Euler in `weights`.

    Shapes and types: all of one shape, any; positive, negative in one dtype, float32/bfloat16/float16/float64; latents
    and what follows float32 or float64, one dtype. negative None: no guidance. older, newer None: zeros.
    Returns (result, denoised, start) in latents' dtype, contiguous; start is None where base is.
    Units and ranges: 4 base_weights and 3 weights, finite or not: they are not checked.
    Numerics: everything in latents' dtype. NaN and infinity stay in their element.
    Raises: TypeError for a dtype, ValueError for a shape, a device or a number of weights.
    Source: guidance, arXiv 2207.12598; the solvers, arXiv 2302.04867 and 2211.01095, are linear in these tensors.
    """
    check_tensor(NAME, "positive", positive)
    check_tensor(NAME, "latents", latents, (torch.float32, torch.float64))
    check_shape(NAME, "positive", positive, latents.shape)
    _check_like("negative", negative, positive)
    for name, value in (("base", base), ("older", older), ("newer", newer)):
        _check_like(name, value, latents)
    check_same_device(NAME, latents=latents, positive=positive, negative=negative, base=base, older=older, newer=newer)
    for name, values, count in (("base_weights", base_weights, 4), ("weights", weights, 3)):
        if len(values) != count:
            raise ValueError(f"[{NAME}] {name} must be {count} numbers, got {len(values)}")
    tensors = (positive, negative, latents, base, older, newer)
    options = (float(guidance_scale), float(sigma), [float(w) for w in base_weights], [float(w) for w in weights])
    result, denoised, start = OP(*tensors, *options)
    return result, denoised, None if base is None else start


def _check_like(name: str, value: Tensor | None, like: Tensor) -> None:
    if value is None:
        return
    check_tensor(NAME, name, value)
    check_shape(NAME, name, value, like.shape)
    if value.dtype != like.dtype:
        raise TypeError(f"[{NAME}] {name} must be {short(like.dtype)} as its fellows are, got {short(value.dtype)}")
