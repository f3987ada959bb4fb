"""guided_update on the device. Imported when it is first run: the backend itself needs no Triton."""

import triton
import triton.language as tl


@triton.jit
def guided_update_fwd_kernel(
    result,  # all [num_elements], contiguous; float32 but for the velocities
    denoised,
    start,  # or None without a base
    positive,
    negative,  # or None, as what follows latents
    latents,
    base,
    older,
    newer,
    num_elements,
    guidance_scale,
    sigma,
    of_base,  # weights of start
    of_older,
    of_newer,
    of_denoised,
    by_start,  # weights of result
    by_newer,
    by_denoised,
    BLOCK: tl.constexpr,
):
    """A block of elements per program; every tensor is touched once."""
    at = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    inside = at < num_elements
    velocity = tl.load(positive + at, mask=inside).to(tl.float32)
    if negative is not None:
        away = tl.load(negative + at, mask=inside).to(tl.float32)
        velocity = away + guidance_scale * (velocity - away)
    begin = tl.load(latents + at, mask=inside)
    clean = begin - sigma * velocity
    past = tl.zeros((BLOCK,), tl.float32)
    if newer is not None:
        past = tl.load(newer + at, mask=inside)
    if base is not None:
        begin = of_base * tl.load(base + at, mask=inside)
        if older is not None:
            begin += of_older * tl.load(older + at, mask=inside)
        if newer is not None:
            begin += of_newer * past
        begin += of_denoised * clean
        tl.store(start + at, begin, mask=inside)
    sample = by_start * begin
    if newer is not None:
        sample += by_newer * past
    tl.store(result + at, sample + by_denoised * clean, mask=inside)
    tl.store(denoised + at, clean, mask=inside)
