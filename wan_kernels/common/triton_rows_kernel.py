"""What kernels that keep a row in registers share on the device."""

import triton
import triton.language as tl


@triton.jit
def load_row(pointer, columns, inside):
    """A row that other programs read too: it may stay in the cache."""
    return tl.load(pointer + columns, mask=inside, other=0.0).to(tl.float32)


@triton.jit
def load_row_once(pointer, columns, inside):
    return tl.load(pointer + columns, mask=inside, other=0.0, eviction_policy="evict_first").to(tl.float32)


@triton.jit
def reciprocal_root(value):
    """1 / sqrt(value), both steps rounded as IEEE asks."""
    return tl.div_rn(tl.full((), 1.0, tl.float32), tl.sqrt_rn(value))


@triton.jit
def normalise(x, inside, width, eps):
    """(x - mean) / sqrt(var + eps) of a row in registers, and 1 / sqrt(var + eps); the variance about the mean."""
    distance = tl.where(inside, x - tl.sum(x, axis=0) / width, 0.0)
    scale = reciprocal_root(tl.sum(distance * distance, axis=0) / width + eps)
    return distance * scale, scale


@triton.jit
def modulation_row(index, sample, token, stride_sample, stride_token):
    """The modulation row of a sample's token: index [B, L] or None, where every sample has but one."""
    if index is None:
        return tl.full((), 0, tl.int64)
    else:
        return tl.load(index + sample * stride_sample + token * stride_token).to(tl.int64)
