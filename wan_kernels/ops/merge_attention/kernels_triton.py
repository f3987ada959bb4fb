"""merge_attention on the device. Imported when it is first run: the backend itself needs no Triton."""

import triton
import triton.language as tl

LOG_2 = tl.constexpr(0.6931471805599453)


@triton.jit
def places_of_tile(num_tokens, num_heads, TOKENS: tl.constexpr, HEADS: tl.constexpr):
    """Where the rows of this program's tile lie, in out [B, L, N, H] and in a log-sum-exp [B, N, L]; are they inside?

    Tiles beside each other have heads beside each other, so that what runs at a time reads one stretch of memory. A
    tile has several tokens of a head, because those lie together in the log-sum-exps.
    """
    num_head_tiles = tl.cdiv(num_heads, HEADS)
    num_token_tiles = tl.cdiv(num_tokens, TOKENS)
    tile = tl.program_id(0) // num_head_tiles
    row = tl.arange(0, TOKENS * HEADS)
    sample = (tile // num_token_tiles).to(tl.int64)
    token = tile % num_token_tiles * TOKENS + row // HEADS
    head = tl.program_id(0) % num_head_tiles * HEADS + row % HEADS
    inside = (token < num_tokens) & (head < num_heads)
    return (sample * num_tokens + token) * num_heads + head, (sample * num_heads + head) * num_tokens + token, inside


@triton.jit
def weights_of(lse_a, lse_b):
    """How much each part counts, whether each has keys, and the merged log-sum-exp."""
    has_a = lse_a != float("-inf")
    has_b = lse_b != float("-inf")
    ratio = tl.exp(-tl.abs(lse_a - lse_b))
    larger = 1.0 / (1.0 + ratio)
    smaller = ratio * larger
    weight_a = tl.where(has_b, tl.where(lse_a >= lse_b, larger, smaller), 1.0)
    weight_b = tl.where(has_a, tl.where(lse_b >= lse_a, larger, smaller), 1.0)
    # Equal ones apart: where both are infinite their difference says nothing.
    both = tl.where(lse_a == lse_b, lse_a + LOG_2, tl.maximum(lse_a, lse_b) + tl.log(1.0 + ratio))
    return weight_a, weight_b, has_a, has_b, tl.where(has_a & has_b, both, tl.where(has_a, lse_a, lse_b))


@triton.jit
def load_once(rows, columns, mask):
    return tl.load(rows[:, None] + columns, mask=mask, other=0.0, eviction_policy="evict_first").to(tl.float32)


@triton.jit
def merge_attention_fwd_kernel(
    out,  # [B, L, N, width], contiguous
    lse,  # [B, N, L] float32, contiguous, as lse_a and lse_b
    out_a,  # [B * L * N, width], any float, as out_b; their last dims contiguous
    lse_a,
    out_b,
    lse_b,
    out_a_stride,
    out_b_stride,
    num_tokens,
    num_heads,
    width,
    TOKENS: tl.constexpr,
    HEADS: tl.constexpr,
    COLUMNS: tl.constexpr,
):
    row, place, inside = places_of_tile(num_tokens, num_heads, TOKENS, HEADS)
    of_a = tl.load(lse_a + place, mask=inside, other=0.0)
    of_b = tl.load(lse_b + place, mask=inside, other=0.0)
    weight_a, weight_b, has_a, has_b, merged = weights_of(of_a, of_b)
    tl.store(lse + place, merged, mask=inside)

    columns = tl.arange(0, COLUMNS)[None, :]
    in_row = columns < width
    # What a part without keys holds is not looked at.
    a = load_once(out_a + row * out_a_stride, columns, (inside & has_a)[:, None] & in_row)
    b = load_once(out_b + row * out_b_stride, columns, (inside & has_b)[:, None] & in_row)
    both = a * weight_a[:, None] + b * weight_b[:, None]
    value = tl.where((has_a & has_b)[:, None], both, tl.where(has_a[:, None], a, b))
    to = out + row[:, None] * width + columns
    tl.store(to, value.to(out.dtype.element_ty), mask=inside[:, None] & in_row)


@triton.jit
def store_weighted(to, grad, weight, has_keys, mask):
    """A part's gradient; a part without keys gets zeros."""
    value = tl.where(has_keys[:, None], grad * weight[:, None], 0.0)
    tl.store(to, value.to(to.dtype.element_ty), mask=mask)


@triton.jit
def merge_attention_bwd_kernel(
    grad_out_a,  # [B, L, N, width], contiguous, or None where it is not asked for, as the three that follow
    grad_lse_a,  # [B, N, L] float32, contiguous, as every log-sum-exp
    grad_out_b,
    grad_lse_b,
    grad_out,  # [B * L * N, width], any float, as out_a and out_b; their last dims contiguous; None for zeros
    grad_lse,  # or None for zeros
    out_a,
    lse_a,
    out_b,
    lse_b,
    grad_out_stride,
    out_a_stride,
    out_b_stride,
    num_tokens,
    num_heads,
    width,
    TOKENS: tl.constexpr,
    HEADS: tl.constexpr,
    COLUMNS: tl.constexpr,
):
    row, place, inside = places_of_tile(num_tokens, num_heads, TOKENS, HEADS)
    of_a = tl.load(lse_a + place, mask=inside, other=0.0)
    of_b = tl.load(lse_b + place, mask=inside, other=0.0)
    weight_a, weight_b, has_a, has_b, _ = weights_of(of_a, of_b)
    # Of the difference of the log-sum-exps: d weight_a = weight_a * weight_b = -d weight_b.
    shift = tl.zeros((TOKENS * HEADS,), tl.float32)
    if grad_out is not None:
        columns = tl.arange(0, COLUMNS)[None, :]
        in_row = inside[:, None] & (columns < width)
        grad = load_once(grad_out + row * grad_out_stride, columns, in_row)
        if grad_lse_a is not None or grad_lse_b is not None:
            are_both = has_a & has_b
            a = load_once(out_a + row * out_a_stride, columns, in_row & are_both[:, None])
            b = load_once(out_b + row * out_b_stride, columns, in_row & are_both[:, None])
            shift = tl.where(are_both, weight_a * weight_b * tl.sum(grad * (a - b), axis=1), 0.0)
        to = row[:, None] * width + columns
        if grad_out_a is not None:
            store_weighted(grad_out_a + to, grad, weight_a, has_a, in_row)
        if grad_out_b is not None:
            store_weighted(grad_out_b + to, grad, weight_b, has_b, in_row)
    of_lse = tl.zeros((TOKENS * HEADS,), tl.float32)
    if grad_lse is not None:
        of_lse = tl.load(grad_lse + place, mask=inside, other=0.0)
    if grad_lse_a is not None:
        tl.store(grad_lse_a + place, tl.where(has_a, of_lse * weight_a, 0.0) + shift, mask=inside)
    if grad_lse_b is not None:
        tl.store(grad_lse_b + place, tl.where(has_b, of_lse * weight_b, 0.0) - shift, mask=inside)
