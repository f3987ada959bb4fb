"""rms_norm_rope on the device. Imported when it is first run: the backend itself needs no Triton.

A token is a tile [HEADS, 2 * PAIRS], so that one head's cosines and sines serve all; first and second are the members
of its pairs, [HEADS, PAIRS] each.
"""

import triton
import triton.language as tl

from wan_kernels.common.triton_rows_kernel import reciprocal_root


@triton.jit
def pairs_of(tile):
    """(first, second) of [HEADS, 2 * PAIRS], float32."""
    HEADS: tl.constexpr = tile.shape[0]
    PAIRS: tl.constexpr = tile.shape[1] // 2
    return tl.split(tl.reshape(tile.to(tl.float32), (HEADS, PAIRS, 2)))


@triton.jit
def turns_at(
    token, freqs_t, freqs_y, freqs_x, num_y, num_x, num_pairs_t, num_pairs_y, num_pairs_x, PAIRS: tl.constexpr
):
    """(cos, sin) of a token's pairs, [1, PAIRS] each; the tables are [length, pairs, 2], contiguous."""
    pair = tl.arange(0, PAIRS)[None, :]
    at_t = token // (num_y * num_x) * num_pairs_t + pair
    at_y = token // num_x % num_y * num_pairs_y + pair - num_pairs_t
    at_x = token % num_x * num_pairs_x + pair - num_pairs_t - num_pairs_y
    turn = tl.where(pair < num_pairs_t + num_pairs_y, freqs_y + 2 * at_y, freqs_x + 2 * at_x)
    turn = tl.where(pair < num_pairs_t, freqs_t + 2 * at_t, turn)
    inside = pair < num_pairs_t + num_pairs_y + num_pairs_x
    return tl.load(turn, mask=inside, other=1.0), tl.load(turn + 1, mask=inside, other=0.0)


@triton.jit
def rms_norm_rope_fwd_kernel(
    x,  # [num_rows, num_heads * head_width], any float, as weight; their last dims contiguous
    weight,
    out,  # [num_rows, num_heads * head_width], contiguous
    freqs_t,  # [length, num_pairs_t, 2] float32, contiguous, as the others
    freqs_y,
    freqs_x,
    x_stride,
    num_tokens,  # of a sample
    num_turned,  # of these: T * Y * X
    num_y,
    num_x,
    num_pairs_t,
    num_pairs_y,
    num_pairs_x,
    num_heads,
    head_width,
    eps,
    HEADS: tl.constexpr,
    PAIRS: tl.constexpr,
):
    """A token per program, its row in registers from the load to the store."""
    row = tl.program_id(0).to(tl.int64)
    head, lane = tl.arange(0, HEADS)[:, None], tl.arange(0, 2 * PAIRS)[None, :]
    columns = head * head_width + lane
    inside = (head < num_heads) & (lane < head_width)
    width = num_heads * head_width
    first, second = pairs_of(
        tl.load(x + row * x_stride + columns, mask=inside, other=0.0, eviction_policy="evict_first")
    )
    first_weight, second_weight = pairs_of(tl.load(weight + columns, mask=inside, other=0.0))
    scale = reciprocal_root(tl.sum(first * first + second * second) / width + eps)
    first = (first * scale).to(x.dtype.element_ty).to(tl.float32) * first_weight
    second = (second * scale).to(x.dtype.element_ty).to(tl.float32) * second_weight
    token = tl.program_id(0) % num_tokens
    if token < num_turned:
        cos, sin = turns_at(
            token, freqs_t, freqs_y, freqs_x, num_y, num_x, num_pairs_t, num_pairs_y, num_pairs_x, PAIRS
        )
        first, second = first * cos - second * sin, first * sin + second * cos
    turned = tl.interleave(first, second).to(out.dtype.element_ty)
    tl.store(out + row * width + columns, turned, mask=inside)


@triton.jit
def rms_norm_rope_bwd_kernel(
    grad_out,  # [num_rows, num_heads * head_width], any float, as x and weight; their last dims contiguous
    x,
    weight,
    grad_x,  # [num_rows, num_heads * head_width], contiguous, or None where it is not asked for
    weight_slots,  # [num_programs, num_heads * head_width] float32, or None
    freqs_t,  # [length, num_pairs_t, 2] float32, contiguous, as the others
    freqs_y,
    freqs_x,
    grad_out_stride,
    x_stride,
    num_rows,
    num_tokens,
    num_turned,
    num_y,
    num_x,
    num_pairs_t,
    num_pairs_y,
    num_pairs_x,
    num_heads,
    head_width,
    span,
    eps,
    HEADS: tl.constexpr,
    PAIRS: tl.constexpr,
    STAGES: tl.constexpr,
):
    """A span of tokens per program: turned back, which is the rotation's transpose, then as rms_norm. With g the
    gradient of the normalised row and r the reciprocal rms: grad_x = r * (g - x * r^2 * mean(g * x)).
    """
    program = tl.program_id(0)
    begin = program * span
    head, lane = tl.arange(0, HEADS)[:, None], tl.arange(0, 2 * PAIRS)[None, :]
    columns = head * head_width + lane
    inside = (head < num_heads) & (lane < head_width)
    width = num_heads * head_width
    first_weight, second_weight = pairs_of(tl.load(weight + columns, mask=inside, other=0.0))
    first_total = tl.zeros((HEADS, PAIRS), tl.float32)
    second_total = tl.zeros((HEADS, PAIRS), tl.float32)
    for place in tl.range(begin, tl.minimum(begin + span, num_rows), num_stages=STAGES):
        row = tl.cast(place, tl.int64)
        first, second = pairs_of(tl.load(x + row * x_stride + columns, mask=inside, other=0.0))
        first_grad, second_grad = pairs_of(tl.load(grad_out + row * grad_out_stride + columns, mask=inside, other=0.0))
        token = place % num_tokens
        if token < num_turned:
            cos, sin = turns_at(
                token, freqs_t, freqs_y, freqs_x, num_y, num_x, num_pairs_t, num_pairs_y, num_pairs_x, PAIRS
            )
            first_grad, second_grad = first_grad * cos + second_grad * sin, second_grad * cos - first_grad * sin
        scale = reciprocal_root(tl.sum(first * first + second * second) / width + eps)
        if weight_slots is not None:
            first_total += first_grad * (first * scale).to(x.dtype.element_ty).to(tl.float32)
            second_total += second_grad * (second * scale).to(x.dtype.element_ty).to(tl.float32)
        if grad_x is not None:
            first_grad *= first_weight
            second_grad *= second_weight
            along_x = scale * scale * (tl.sum(first_grad * first + second_grad * second) / width)
            grad = tl.interleave(scale * (first_grad - first * along_x), scale * (second_grad - second * along_x))
            tl.store(grad_x + row * width + columns, grad.to(grad_x.dtype.element_ty), mask=inside)
    if weight_slots is not None:
        total = tl.interleave(first_total, second_total)
        tl.store(weight_slots + program.to(tl.int64) * width + columns, total, mask=inside)
