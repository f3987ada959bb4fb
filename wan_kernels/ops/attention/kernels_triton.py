"""attention on the device. Imported when it is first run: the backend itself needs no Triton.

The schedule is Triton's warp specialisation for Hopper: one warpgroup keeps the copy engine busy, two others own 64
rows each of what the program sums up and drift apart, so that one multiplies while the other takes exponentials. The
compiler does this only for 4 warps and a loop that holds every tl.dot of the kernel and reads its tiles by descriptor;
any other, and a load by pointers that would have to be split between the two, makes it fail or give up silently. Hence
no peeled last tile, and descriptors for one number per row.

Each program makes its descriptors itself, of one head and its valid keys only: the copy engine then gives zeros for all
that lies beyond, NaN or not, and no value has to be masked. Exponentials are of base 2, the scale folded in.
"""

import triton
import triton.language as tl

LOG2_E = tl.constexpr(1.4426950408889634)
LN_2 = tl.constexpr(0.6931471805599453)


@triton.jit
def place_of(num_tiles, num_heads):
    """(sample, head, tile) of this program; the tiles of a head follow each other, so that they share it in L2."""
    program = tl.program_id(0)
    sample, rest = program // (num_tiles * num_heads), program % (num_tiles * num_heads)
    return sample.to(tl.int64), (rest // num_tiles).to(tl.int64), rest % num_tiles


@triton.jit
def length_of(k_lengths, sample, num_keys):
    """How many keys of the sample are valid."""
    if k_lengths is None:
        return num_keys
    else:
        return tl.minimum(tl.load(k_lengths + sample), num_keys).to(tl.int32)


@triton.jit
def rows_of(
    x, sample, head, stride_sample, stride_token, stride_head, num_rows, width, ROWS: tl.constexpr, WIDTH: tl.constexpr
):
    """The copy engine's view of a head of x [B, L, N, H]: tiles [ROWS, WIDTH], zeros beyond num_rows and width."""
    first = x + sample * stride_sample + head * stride_head
    return tl.make_tensor_descriptor(first, [num_rows, width], [stride_token, 1], [ROWS, WIDTH])


@triton.jit
def numbers_of(x, sample, head, num_heads, num_padded, ROWS: tl.constexpr):
    """The copy engine's view of a head of x [B, N, num_padded]: ROWS numbers at a time."""
    return tl.make_tensor_descriptor(x + (sample * num_heads + head) * num_padded, [num_padded], [1], [ROWS])


@triton.jit
def store_rows(out, tile, sample, head, first_row, num_rows, num_heads, width):
    """A tile [ROWS, WIDTH] to its place in a head of out [B, L, N, H], contiguous."""
    rows = first_row + tl.arange(0, tile.shape[0])[:, None]
    lanes = tl.arange(0, tile.shape[1])[None, :]
    at = ((sample * num_rows + rows) * num_heads + head) * width + lanes
    tl.store(out + at, tile.to(out.dtype.element_ty), mask=(rows < num_rows) & (lanes < width))


@triton.jit
def attention_fwd_kernel(
    q,  # [B, num_queries, num_heads, head_width], 16 bits, rows contiguous and on 16 bytes, as those of k and v
    k,  # [B, num_keys, num_heads, head_width]
    v,
    out,  # [B, num_queries, num_heads, head_width], contiguous
    lse,  # [B, num_heads, num_queries] float32
    k_lengths,  # [B] or None
    q_stride_sample,
    q_stride_token,
    q_stride_head,
    k_stride_sample,
    k_stride_token,
    k_stride_head,
    v_stride_sample,
    v_stride_token,
    v_stride_head,
    scale,
    num_queries,
    num_keys,
    num_heads,
    head_width,
    QUERIES: tl.constexpr,
    KEYS: tl.constexpr,
    WIDTH: tl.constexpr,
):
    """QUERIES rows of one head per program, past every valid key (arXiv 2205.14135, algorithm 1)."""
    sample, head, tile = place_of(tl.cdiv(num_queries, QUERIES), num_heads)
    first_query = tile * QUERIES
    length = length_of(k_lengths, sample, num_keys)
    q_rows = rows_of(
        q, sample, head, q_stride_sample, q_stride_token, q_stride_head, num_queries, head_width, QUERIES, WIDTH
    )
    k_rows = rows_of(k, sample, head, k_stride_sample, k_stride_token, k_stride_head, length, head_width, KEYS, WIDTH)
    v_rows = rows_of(v, sample, head, v_stride_sample, v_stride_token, v_stride_head, length, head_width, KEYS, WIDTH)
    q_tile = q_rows.load([first_query, 0])
    log2_scale = scale * LOG2_E
    peak = tl.full([QUERIES], float("-inf"), tl.float32)
    total = tl.zeros([QUERIES], tl.float32)
    sums = tl.zeros([QUERIES, WIDTH], tl.float32)
    for first_key in tl.range(0, length, KEYS, warp_specialize=True):
        logits = tl.dot(q_tile, k_rows.load([first_key, 0]).T)
        is_valid = first_key + tl.arange(0, KEYS) < length
        logits = tl.where(is_valid[None, :], logits, float("-inf"))
        new_peak = tl.maximum(peak, tl.max(logits, axis=1))
        # As long as every logit is -inf, any finite shift is right and -inf would make them NaN.
        shift = tl.where(new_peak == float("-inf"), 0.0, new_peak * log2_scale)
        weights = tl.exp2(logits * log2_scale - shift[:, None])
        fade = tl.exp2(peak * log2_scale - shift)
        total = total * fade + tl.sum(weights, axis=1)
        sums = tl.dot(weights.to(v.dtype.element_ty), v_rows.load([first_key, 0]), sums * fade[:, None])
        peak = new_peak

    store_rows(out, sums * (1.0 / total)[:, None], sample, head, first_query, num_queries, num_heads, head_width)
    queries = first_query + tl.arange(0, QUERIES)
    at = (sample * num_heads + head) * num_queries + queries
    tl.store(lse + at, (peak * log2_scale + tl.log2(total)) * LN_2, mask=queries < num_queries)


@triton.jit
def attention_bwd_rows_kernel(
    out,  # [B, num_queries, num_heads, head_width], contiguous
    grad_out,  # the same, rows contiguous
    lse,  # [B, num_heads, num_queries] float32
    grad_lse,  # the same or None
    shift,  # [B, num_heads, num_padded] float32: lse for exponentials of base 2, infinite beyond num_queries
    mean_grad,  # [B, num_heads, num_padded] float32: sum(grad_out * out) - grad_lse, 0 beyond num_queries
    grad_out_stride_sample,
    grad_out_stride_token,
    grad_out_stride_head,
    num_queries,
    num_padded,
    num_heads,
    head_width,
    QUERIES: tl.constexpr,
    WIDTH: tl.constexpr,
):
    """What the other kernels need of each row: once, not in each of their steps."""
    sample, head, tile = place_of(num_padded // QUERIES, num_heads)
    queries = tile * QUERIES + tl.arange(0, QUERIES)
    lanes = tl.arange(0, WIDTH)[None, :]
    is_query = queries < num_queries
    inside = is_query[:, None] & (lanes < head_width)
    at = ((sample * num_queries + queries[:, None]) * num_heads + head) * head_width + lanes
    out_tile = tl.load(out + at, mask=inside, other=0.0).to(tl.float32)
    at = sample * grad_out_stride_sample + head * grad_out_stride_head
    at += queries.to(tl.int64)[:, None] * grad_out_stride_token + lanes
    mean = tl.sum(out_tile * tl.load(grad_out + at, mask=inside, other=0.0).to(tl.float32), axis=1)
    at = (sample * num_heads + head) * num_queries + queries
    if grad_lse is not None:
        mean -= tl.load(grad_lse + at, mask=is_query, other=0.0)
    row_lse = tl.load(lse + at, mask=is_query, other=float("inf"))
    at = (sample * num_heads + head) * num_padded + queries
    tl.store(shift + at, row_lse * LOG2_E)
    tl.store(mean_grad + at, mean)


@triton.jit
def attention_bwd_q_kernel(
    q,  # as in the forward, as k and v
    k,
    v,
    grad_out,  # as q
    shift,  # [B, num_heads, num_padded] float32, as mean_grad: see attention_bwd_rows_kernel
    mean_grad,
    grad_q,  # [B, num_queries, num_heads, head_width], contiguous
    k_lengths,  # [B] or None
    q_stride_sample,
    q_stride_token,
    q_stride_head,
    k_stride_sample,
    k_stride_token,
    k_stride_head,
    v_stride_sample,
    v_stride_token,
    v_stride_head,
    grad_out_stride_sample,
    grad_out_stride_token,
    grad_out_stride_head,
    scale,
    num_queries,
    num_padded,
    num_keys,
    num_heads,
    head_width,
    QUERIES: tl.constexpr,
    KEYS: tl.constexpr,
    WIDTH: tl.constexpr,
):
    """QUERIES rows of one head per program, past every valid key: the weights anew, their gradient, its product with k
    (arXiv 2205.14135, algorithm 4).
    """
    sample, head, tile = place_of(tl.cdiv(num_queries, QUERIES), num_heads)
    first_query = tile * QUERIES
    length = length_of(k_lengths, sample, num_keys)
    q_rows = rows_of(
        q, sample, head, q_stride_sample, q_stride_token, q_stride_head, num_queries, head_width, QUERIES, WIDTH
    )
    grad_rows = rows_of(
        grad_out,
        sample,
        head,
        grad_out_stride_sample,
        grad_out_stride_token,
        grad_out_stride_head,
        num_queries,
        head_width,
        QUERIES,
        WIDTH,
    )
    k_rows = rows_of(k, sample, head, k_stride_sample, k_stride_token, k_stride_head, length, head_width, KEYS, WIDTH)
    v_rows = rows_of(v, sample, head, v_stride_sample, v_stride_token, v_stride_head, length, head_width, KEYS, WIDTH)
    row_shift = numbers_of(shift, sample, head, num_heads, num_padded, QUERIES).load([first_query])
    row_mean = numbers_of(mean_grad, sample, head, num_heads, num_padded, QUERIES).load([first_query])
    q_tile = q_rows.load([first_query, 0])
    grad_tile = grad_rows.load([first_query, 0])
    log2_scale = scale * LOG2_E
    sums = tl.zeros([QUERIES, WIDTH], tl.float32)
    for first_key in tl.range(0, length, KEYS, warp_specialize=True):
        k_tile = k_rows.load([first_key, 0])
        logits = tl.dot(q_tile, k_tile.T)
        is_valid = first_key + tl.arange(0, KEYS) < length
        weights = tl.where(is_valid[None, :], tl.exp2(logits * log2_scale - row_shift[:, None]), 0.0)
        grad_weights = tl.dot(grad_tile, v_rows.load([first_key, 0]).T)
        grad_logits = weights * (grad_weights - row_mean[:, None])
        sums = tl.dot(grad_logits.to(k.dtype.element_ty), k_tile, sums)
    store_rows(grad_q, sums * scale, sample, head, first_query, num_queries, num_heads, head_width)


@triton.jit
def attention_bwd_kv_kernel(
    q,  # as in the forward, as k and v
    k,
    v,
    grad_out,  # as q
    shift,  # [B, num_heads, num_padded] float32, as mean_grad: see attention_bwd_rows_kernel
    mean_grad,
    grad_k,  # [B, num_keys, num_heads, head_width], contiguous, or None where it is not asked for
    grad_v,  # the same
    k_lengths,  # [B] or None
    q_stride_sample,
    q_stride_token,
    q_stride_head,
    k_stride_sample,
    k_stride_token,
    k_stride_head,
    v_stride_sample,
    v_stride_token,
    v_stride_head,
    grad_out_stride_sample,
    grad_out_stride_token,
    grad_out_stride_head,
    scale,
    num_queries,
    num_padded,
    num_keys,
    num_heads,
    head_width,
    QUERIES: tl.constexpr,
    KEYS: tl.constexpr,
    WIDTH: tl.constexpr,
):
    """KEYS rows of one head per program, past every query; logits lie transposed, keys along the rows. A row beyond
    num_queries weighs exp2(-inf) = 0, and a hidden key spoils its own sums alone, which are not stored.
    """
    sample, head, tile = place_of(tl.cdiv(num_keys, KEYS), num_heads)
    first_key = tile * KEYS
    length = length_of(k_lengths, sample, num_keys)
    q_rows = rows_of(
        q, sample, head, q_stride_sample, q_stride_token, q_stride_head, num_queries, head_width, QUERIES, WIDTH
    )
    grad_rows = rows_of(
        grad_out,
        sample,
        head,
        grad_out_stride_sample,
        grad_out_stride_token,
        grad_out_stride_head,
        num_queries,
        head_width,
        QUERIES,
        WIDTH,
    )
    k_rows = rows_of(k, sample, head, k_stride_sample, k_stride_token, k_stride_head, num_keys, head_width, KEYS, WIDTH)
    v_rows = rows_of(v, sample, head, v_stride_sample, v_stride_token, v_stride_head, num_keys, head_width, KEYS, WIDTH)
    shifts = numbers_of(shift, sample, head, num_heads, num_padded, QUERIES)
    means = numbers_of(mean_grad, sample, head, num_heads, num_padded, QUERIES)
    k_tile = k_rows.load([first_key, 0])
    v_tile = v_rows.load([first_key, 0])
    log2_scale = scale * LOG2_E
    k_sums = tl.zeros([KEYS, WIDTH], tl.float32)
    v_sums = tl.zeros([KEYS, WIDTH], tl.float32)
    # Nothing to do where the tile has no valid key.
    end = tl.where(first_key < length, num_queries, 0)
    for first_query in tl.range(0, end, QUERIES, warp_specialize=True):
        q_tile = q_rows.load([first_query, 0])
        grad_tile = grad_rows.load([first_query, 0])
        logits = tl.dot(k_tile, q_tile.T)
        weights = tl.exp2(logits * log2_scale - shifts.load([first_query])[None, :])
        v_sums = tl.dot(weights.to(q.dtype.element_ty), grad_tile, v_sums)
        grad_weights = tl.dot(v_tile, grad_tile.T)
        grad_logits = weights * (grad_weights - means.load([first_query])[None, :])
        k_sums = tl.dot(grad_logits.to(q.dtype.element_ty), q_tile, k_sums)
    is_valid = (first_key + tl.arange(0, KEYS) < length)[:, None]
    if grad_k is not None:
        k_sums = tl.where(is_valid, k_sums * scale, 0.0)
        store_rows(grad_k, k_sums, sample, head, first_key, num_keys, num_heads, head_width)
    if grad_v is not None:
        v_sums = tl.where(is_valid, v_sums, 0.0)
        store_rows(grad_v, v_sums, sample, head, first_key, num_keys, num_heads, head_width)
