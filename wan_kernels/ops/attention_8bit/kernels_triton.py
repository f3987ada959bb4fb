"""attention_8bit on the device. Imported when it is first run: the backend itself needs no Triton.

A program takes ROWS queries of one head over its keys, KEYS at a time. The tensor cores take 512 clocks for 64 x 128
logits, their exponentials as many, so each instruction saved on a logit counts; there are six and a half:

- Sums of integers start at the bits of the float 1.5 * 2^23, where a step is 1: their bits are then the float
  1.5 * 2^23 + dot, and nothing is converted. As integers they are in the order of the floats, and three have a maximum
  in one instruction.
- One multiply-add makes the exponent of 2 of such a float: times the scales, less the largest so far, plus log2(448) so
  that probabilities fill the range of float8.
- v's tokens are permuted so that probabilities are an operand of the second product in the registers where they lie.

Weights, their total and the result are kept relative to 2^base, base being the row's largest exponent less log2(448).
"""

import triton
import triton.language as tl

LOG2_E = tl.constexpr(1.4426950408889634)
LN_2 = tl.constexpr(0.6931471805599453)
LOG2_448 = tl.constexpr(8.807354922057604)
# 1.5 * 2^23 holds 2^22 to either side, dots of 128 codes stay within 127 * 127 * 128 < 2^21.
MAGIC = tl.constexpr(12582912.0)
MAGIC_BITS = tl.constexpr(0x4B400000)


@triton.jit
def as_operand(weights, ROWS: tl.constexpr, KEYS: tl.constexpr):
    """float8, columns of each 16 in VALUES_ORDER of common/quantize.py: v's, and for this layout no data moves."""
    codes = weights.to(tl.float8e4nv)
    return codes.reshape(ROWS, KEYS // 16, 2, 4, 2).permute(0, 1, 3, 2, 4).reshape(ROWS, KEYS)


@triton.jit
def quarter(x, INDEX: tl.constexpr, ROWS: tl.constexpr, WIDTH: tl.constexpr):
    """A quarter of the columns of x [ROWS, WIDTH], out of the registers where they lie."""
    half = tl.split(x.reshape(ROWS, 2, WIDTH // 2).permute(0, 2, 1))[INDEX // 2]
    return tl.split(half.reshape(ROWS, 2, WIDTH // 4).permute(0, 2, 1))[INDEX % 2]


@triton.jit
def take_in(
    result,  # [ROWS, WIDTH]: the sum of weights times codes of v
    total,  # [ROWS]: the sum of weights
    base,  # [ROWS]
    q_codes,  # [ROWS, WIDTH]
    q_factors,  # [ROWS]: scales of q times that of the logits, base 2
    k_factor,  # k's scale of these keys
    k,
    v,
    k_row,
    v_row,
    first,
    num_visible,
    ROWS: tl.constexpr,
    KEYS: tl.constexpr,
    IS_WHOLE: tl.constexpr,
):
    """The keys from `first` on, of which num_visible, at least one, may be seen; IS_WHOLE: all."""
    # Read before it is needed: the wait for it ends a block of instructions, in which the conversion to float8 should
    # meet what packs four codes into a register.
    values = v.load([v_row, first]).T
    start = tl.full((ROWS, KEYS), MAGIC_BITS, tl.int32)
    bits = tl.dot(q_codes, k.load([k_row + first, 0]).T, start, out_dtype=tl.int32)
    if not IS_WHOLE:
        is_visible = (tl.arange(0, KEYS) < num_visible)[None, :]
        bits = tl.where(is_visible, bits, 0)
    slope = q_factors * k_factor
    largest = tl.max(bits, 1).to(tl.float32, bitcast=True) - MAGIC
    highest = tl.maximum(base, largest * slope - LOG2_448)
    # MAGIC * slope can be in the thousands: the base becomes what this sum, rounded, has left of it.
    offset = tl.fma(slope, -MAGIC, -highest)
    highest = -tl.fma(slope, MAGIC, offset)
    exponents = tl.fma(bits.to(tl.float32, bitcast=True), slope[:, None], offset[:, None])
    if not IS_WHOLE:
        exponents = tl.where(is_visible, exponents, float("-inf"))
    weights = tl.exp2(exponents)
    kept = tl.exp2(base - highest)
    # A sum of its own for each tile: the tensor cores keep 13 bits of it.
    product = tl.dot(as_operand(weights, ROWS, KEYS), values, out_dtype=tl.float32)
    return result * kept[:, None] + product, total * kept + tl.sum(weights, 1), highest


@triton.jit
def dots_with_mean(q, q_at, inside, k_mean, WIDTH: tl.constexpr):
    """q's codes times the mean of k for each row, by quarters: they and the result do not fit the registers at once."""
    dots = tl.zeros(q_at.shape, tl.float32)
    for index in tl.static_range(4):
        columns = index * (WIDTH // 4) + tl.arange(0, WIDTH // 4)
        codes = tl.load(q + q_at[:, None] + columns[None, :], mask=inside[:, None], other=0)
        dots += tl.sum(codes.to(tl.float32) * tl.load(k_mean + columns)[None, :], 1)
    return dots


@triton.jit
def log_add_exp(x, y):
    """log(e^x + e^y), and e^x and e^y as shares of their sum: -inf and zeros where both are -inf."""
    largest = tl.maximum(x, y)
    largest = tl.where(largest == float("-inf"), 0.0, largest)
    total = largest + tl.log2(tl.exp2((x - largest) * LOG2_E) + tl.exp2((y - largest) * LOG2_E)) * LN_2
    finite = tl.where(total == float("-inf"), 0.0, total)
    return total, tl.exp2((x - finite) * LOG2_E), tl.exp2((y - finite) * LOG2_E)


@triton.jit
def attention_8bit_fwd_kernel(
    q,  # [B, N, L, H] int8
    k,  # descriptor of [B * N * S, H] int8, tiles [KEYS, H]
    v,  # descriptor of [B * N * H, P] float8, tiles [H, KEYS]
    q_scale,  # [B, N, ceil(L / q_tokens_per_scale)]
    k_scale,  # [B, N, ceil(S / (KEYS * K_TILES_PER_SCALE))]
    k_mean,  # [B, N, H]
    v_scale,  # [B, N, H]
    v_mean,  # [B, N, H]
    out,  # [B, L, N, H]
    lse,  # [B, N, L]
    k_lengths,  # [B] or None
    prior_out,  # [B, L, N, H], the last dim contiguous, or None
    prior_lse,  # [B, N, L] or None
    prior_stride_sample,
    prior_stride_token,
    prior_stride_head,
    num_queries,
    num_keys,
    q_tokens_per_scale,
    scale,
    ROWS: tl.constexpr,
    KEYS: tl.constexpr,
    WIDTH: tl.constexpr,
    K_TILES_PER_SCALE: tl.constexpr,
):
    """ROWS queries of head program_id(1) of sample program_id(2). Tensors are contiguous where nothing else is said."""
    num_heads = tl.num_programs(1)
    sample, head_of_sample = tl.program_id(2), tl.program_id(1)
    head = sample * num_heads + head_of_sample
    rows = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    inside = rows < num_queries
    length = num_keys
    if k_lengths is not None:
        length = tl.load(k_lengths + sample).to(tl.int32)
    q_row = head.to(tl.int64) * num_queries + rows
    q_at = q_row * WIDTH
    columns = tl.arange(0, WIDTH)
    q_codes = tl.load(q + q_at[:, None] + columns[None, :], mask=inside[:, None], other=0)
    q_scale += head * tl.cdiv(num_queries, q_tokens_per_scale)
    q_scales = tl.load(q_scale + rows // q_tokens_per_scale, mask=inside, other=0.0) * scale
    # An infinite scale makes NaN of its row, also where all its dots are negative.
    q_factors = tl.where(tl.abs(q_scales) < float("inf"), q_scales * LOG2_E, float("nan"))

    result = tl.zeros((ROWS, WIDTH), tl.float32)
    total = tl.zeros((ROWS,), tl.float32)
    base = tl.full((ROWS,), float("-inf"), tl.float32)
    num_tiles = tl.cdiv(num_keys, KEYS)
    k_row, v_row = head * num_keys, head * WIDTH
    k_scale += head * tl.cdiv(num_tiles, K_TILES_PER_SCALE)
    num_whole = length // KEYS
    # Read a tile ahead: the compiler would copy it to shared memory, with a barrier of its own.
    k_factor = tl.load(k_scale)
    for tile in tl.range(num_whole):
        this_factor = k_factor
        k_factor = tl.load(k_scale + tl.minimum(tile + 1, num_tiles - 1) // K_TILES_PER_SCALE)
        result, total, base = take_in(
            result,
            total,
            base,
            q_codes,
            q_factors,
            this_factor,
            k,
            v,
            k_row,
            v_row,
            tile * KEYS,
            KEYS,
            ROWS,
            KEYS,
            True,
        )
    first = num_whole * KEYS
    if first < length:
        left = length - first
        result, total, base = take_in(
            result, total, base, q_codes, q_factors, k_factor, k, v, k_row, v_row, first, left, ROWS, KEYS, False
        )

    is_empty = total == 0.0
    shift = dots_with_mean(q, q_at, inside, k_mean + head * WIDTH, WIDTH) * q_scales
    total = tl.where(is_empty, 1.0, total)
    logarithm = tl.where(is_empty, float("-inf"), (base + tl.log2(total)) * LN_2 + shift)
    inverse = 1.0 / total
    token = rows.to(tl.int64)
    out += ((sample.to(tl.int64) * num_queries + token) * num_heads + head_of_sample)[:, None] * WIDTH
    if prior_out is not None:
        logarithm, share, prior_share = log_add_exp(logarithm, tl.load(prior_lse + q_row, mask=inside, other=0.0))
        prior_out += sample.to(tl.int64) * prior_stride_sample + head_of_sample * prior_stride_head
        prior_out += token[:, None] * prior_stride_token
    tl.store(lse + q_row, logarithm, mask=inside)
    for index in tl.static_range(4):
        columns = index * (WIDTH // 4) + tl.arange(0, WIDTH // 4)
        scales, means = tl.load(v_scale + head * WIDTH + columns), tl.load(v_mean + head * WIDTH + columns)
        y = quarter(result, index, ROWS, WIDTH) * inverse[:, None] * scales[None, :] + means[None, :]
        y = tl.where(is_empty[:, None], 0.0, y)
        if prior_out is not None:
            prior = tl.load(prior_out + columns[None, :], mask=inside[:, None], other=0.0).to(tl.float32)
            y = y * share[:, None] + prior * prior_share[:, None]
        tl.store(out + columns[None, :], y.to(out.dtype.element_ty), mask=inside[:, None])
