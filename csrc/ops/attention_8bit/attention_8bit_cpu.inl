// SPDX-License-Identifier: Apache-2.0
// Flash attention on codes. A few queries meet a tile of keys in integers; their probabilities become unsigned bytes,
// 255 for the largest of the row in this tile, and meet the tile's values in integers too. What comes of it joins the
// row's float sums with one factor, so that no tile is coarser for a large score elsewhere.
#include "common/cpu/codes.h"
#include "common/cpu/dot.h"
#include "common/cpu/exp.h"
#include "ops/attention_8bit/attention_8bit_cpu.h"

namespace wk {
namespace WK_ISA {
namespace {

#if WK_X86_INTRINSICS && defined(__AVX512VNNI__)
constexpr int kRowsAtOnce = 8, kGroupsAtOnce = 2;
#elif WK_X86_INTRINSICS && defined(__AVX2__)
constexpr int kRowsAtOnce = 2, kGroupsAtOnce = 1;
#else
constexpr int kRowsAtOnce = 1, kGroupsAtOnce = 1;
#endif

constexpr float kLog2E = 1.44269504f, kLog2Of255 = 7.99435344f;
// A row's sums are kept relative to a power of 2 that need not be that of its largest score: float32 has room above.
constexpr float kRoom = 20.0f;
constexpr float kInfinity = __builtin_inff();

int64_t rounded_up(int64_t count, int64_t step) { return (count + step - 1) / step * step; }

// ---- packing ----

// Rows of bytes [num_rows][num_bytes] to groups of 16 of them. Both counts are rounded up by zeros to `num_groups` and
// `num_quads`.
void pack_rows(int8_t *to, const int8_t *from, int64_t stride, int64_t num_rows, int64_t num_bytes, int64_t num_groups,
               int64_t num_quads) {
  const int64_t whole = num_bytes / kQuad;
  __builtin_memset(to, 0, static_cast<size_t>(num_groups * num_quads * kQuadBytes));
  for (int64_t row = 0; row < num_rows; ++row) {
    const int8_t *bytes = from + row * stride;
    int8_t *group = to + row / kGroupColumns * num_quads * kQuadBytes + row % kGroupColumns * kQuad;
    for (int64_t quad = 0; quad < whole; ++quad)
      __builtin_memcpy(group + quad * kQuadBytes, bytes + quad * kQuad, kQuad);
    for (int64_t i = whole * kQuad; i < num_bytes; ++i) group[whole * kQuadBytes + i % kQuad] = bytes[i];
  }
}

void pack(const Attention8bit &call, int64_t head, int64_t tile, const PackedHead &packed) {
  const int64_t width = call.head_width, first = tile * call.tile, left = call.num_keys - first;
  const int64_t count = left < call.tile ? left : call.tile;
  const int8_t *keys = call.k.codes + (head * call.num_keys + first) * width;
  pack_rows(packed.keys + first * width, keys, width, count, width, call.tile / kGroupColumns, width / kQuad);
  const int64_t room = call.positions - first, num_positions = room < call.tile ? room : call.tile;
  pack_rows(packed.values + first * width, call.v.codes + head * width * call.positions + first, call.positions, width,
            num_positions, width / kGroupColumns, call.tile / kQuad);
  const float sign = call.scale < 0.0f ? -1.0f : 1.0f;
  for (int64_t i = 0; i < count; ++i) {
    int32_t sum = 0;
    for (int64_t c = 0; c < width && kShift; ++c) sum += keys[i * width + c];
    packed.offsets[first + i] = kShift * sum;
    packed.key_scales[first + i] =
        sign * call.k.scales[head * call.k.num_blocks + (first + i) / call.k.tokens_per_scale];
  }
}

// ---- softmax ----

// What one query has seen so far: its sums are multiples of 2^base / 255.
struct Row {
  float scale;  // of the exponents of 2: |scale| * log2(e) * its own
  float base = -kInfinity;
  float sum = 0.0f;
};

WK_INLINE Floats hidden_past(Floats value, Whole) { return value; }
WK_INLINE Floats hidden_past(Floats value, Part part) {
  for (int64_t i = part.count; i < kLanes; ++i) value[i] = -kInfinity;
  return value;
}

inline float largest_lane(Floats value) {
  typedef float Quad __attribute__((vector_size(16)));
  Quad parts[kLanes / 4];
  __builtin_memcpy(parts, &value, sizeof value);
  Quad most = parts[0];
  for (int i = 1; i < kLanes / 4; ++i) most = parts[i] > most ? parts[i] : most;
  float result = most[0];
  for (int i = 1; i < 4; ++i) result = most[i] > result ? most[i] : result;
  return result;
}

inline float power(float x) { return power_of_2<5>(splat(x))[0]; }

// Turns the sums of a row with `count` keys into the codes of its probabilities, and zeros up to `padded`. Returns the
// factor of their products. A NaN anywhere is in the row's sum.
float weigh(uint8_t *weights, float *powers, const int32_t *offsets, const float *key_scales, int64_t count,
            int64_t padded, Row *row) {
  const int32_t *sums = reinterpret_cast<const int32_t *>(powers);
  Floats most = splat(-kInfinity);
  for_each_vector(count, [&](int64_t i, auto extent) {
    const Floats value = hidden_past(load_sums(sums + i, offsets + i, extent) * load(key_scales + i, extent), extent);
    store(powers + i, value, Whole{});
    most = at_least(value, most);
  });
  const float largest = row->scale * largest_lane(most);
  const Floats scale = splat(row->scale), shift = splat(kLog2Of255 - largest);
  Floats total = zeros();
  for_each_vector(count, [&](int64_t i, auto extent) {
    const Floats value = kept(power_of_2<4>(load(powers + i, Whole{}) * scale + shift), extent);
    total += value;
    store_codes(weights + i, encode(value, int8_t{}), Whole{});
  });
  for (int64_t i = rounded_up(count, kLanes); i < padded; ++i) weights[i] = 0;
  if (!(largest <= row->base + kRoom)) row->base = largest;
  const float factor = power(largest - row->base);
  row->sum += sum(total) * factor;
  return factor;
}

// ---- a block of queries ----

// out = out * decay + products * factor * value_scales.
void add_products(float *out, const int32_t *products, float decay, float factor, const float *value_scales,
                  int64_t width) {
  const Floats old = splat(decay), share = splat(factor);
  for_each_vector(width, [&](int64_t i, auto extent) {
    Masks sums;
    __builtin_memcpy(&sums, products + i, sizeof sums);
    const Floats product = __builtin_convertvector(sums, Floats) * load(value_scales + i, extent);
    store(out + i, load(out + i, extent) * old + product * share, extent);
  });
}

// A few rows of the block meet the first `count` keys of a tile.
void attend_tile(const Attention8bit &call, int64_t head, int64_t tile, int64_t count, const PackedHead &packed,
                 const uint8_t *codes, int64_t num_rows, Row *rows, float *out, const Attention8bitScratch &scratch) {
  const int64_t width = call.head_width, first = tile * call.tile, num_groups = rounded_up(count, kGroupColumns) / 16;
  const int64_t padded = num_groups * kGroupColumns;
  const Product<Left> scores = {reinterpret_cast<const Left *>(codes),
                                width,
                                packed.keys + first * width,
                                width / kQuad * kQuadBytes,
                                width / kQuad,
                                reinterpret_cast<int32_t *>(scratch.powers),
                                kMaxTile};
  multiply<kRowsAtOnce, kGroupsAtOnce>(scores, num_rows, num_groups);
  float factors[kRowsAtOnce], decays[kRowsAtOnce];
  for (int64_t r = 0; r < num_rows; ++r) {
    const float base = rows[r].base, sum = rows[r].sum;
    rows[r].sum = 0.0f;
    factors[r] = weigh(scratch.weights + r * kMaxTile, scratch.powers + r * kMaxTile, packed.offsets + first,
                       packed.key_scales + first, count, padded, rows + r);
    decays[r] = rows[r].base == base ? 1.0f : power(base - rows[r].base);
    rows[r].sum += sum * decays[r];
  }
  const Product<uint8_t> weighted = {
      scratch.weights,  kMaxTile, packed.values + first * width, call.tile / kQuad * kQuadBytes, padded / kQuad,
      scratch.products, width};
  multiply<kRowsAtOnce, kGroupsAtOnce>(weighted, num_rows, width / kGroupColumns);
  const int64_t block = call.v.tokens_per_scale ? first / call.v.tokens_per_scale : 0;
  const float *value_scales = call.v.scales + (head * call.v.num_blocks + block) * width;
  for (int64_t r = 0; r < num_rows; ++r) {
    add_products(out + r * width, scratch.products + r * width, decays[r], factors[r], value_scales, width);
  }
}

// log of the sum of both exponentials, and their shares of it. -inf is a part without keys.
struct Merged {
  float lse, share, prior_share;
};
Merged merge(float lse, float prior_lse) {
  const float most = lse > prior_lse ? lse : prior_lse, least = lse > prior_lse ? prior_lse : lse;
  if (most == -kInfinity) return {most, 0.0f, 0.0f};
  const float total = most + __builtin_log1pf(__builtin_expf(least - most));
  return {total, __builtin_expf(lse - total), __builtin_expf(prior_lse - total)};
}

// scale * q . mean of k, which the codes of k lack.
float shift_of(const Attention8bit &call, int64_t head, int64_t query) {
  const int64_t width = call.head_width;
  const int8_t *codes = call.q.codes + (head * call.num_queries + query) * width;
  const float *mean = call.k.mean + head * width;
  float sums[4] = {};
  for (int64_t i = 0; i < width; ++i) sums[i % 4] += codes[i] * mean[i];
  return (sums[0] + sums[1]) + (sums[2] + sums[3]);
}

template <class T, class Prior>
void finish_row(const Attention8bit &call, int64_t head, int64_t query, const Row &row, const float *out, T *to,
                const Prior *prior) {
  const int64_t width = call.head_width, at = head * call.num_queries + query;
  const float q_scale = call.q.scales[head * call.q.num_blocks + query / call.q.tokens_per_scale];
  const bool is_empty = row.sum == 0.0f;
  const float here =
      (row.base + __builtin_log2f(row.sum) - kLog2Of255) / kLog2E + shift_of(call, head, query) * q_scale * call.scale;
  const Merged merged = prior ? merge(is_empty ? -kInfinity : here, call.prior_lse[at])
                              : Merged{is_empty ? -kInfinity : here, 1.0f, 0.0f};
  call.lse[at] = merged.lse;
  const Floats share = splat(is_empty ? 0.0f : merged.share / row.sum),
               mean_share = splat(is_empty ? 0.0f : merged.share);
  const float *mean = call.v.mean + head * width;
  for_each_vector(width, [&](int64_t i, auto extent) {
    const Floats value = load(out + i, extent) * share + load(mean + i, extent) * mean_share;
    store(to + i, prior ? value + load(prior + i, extent) * splat(merged.prior_share) : value, extent);
  });
}

void finish_rows(const Attention8bit &call, int64_t head, int64_t begin, int64_t end, const Row *rows,
                 const float *out) {
  const int64_t sample = head / call.num_heads, n = head % call.num_heads;
  with_dtype(call.out.dtype, [&](auto type) {
    with_dtype(call.prior_out.data ? call.prior_out.dtype : WK_FLOAT32, [&](auto prior_type) {
      using Prior = decltype(prior_type);
      for (int64_t query = begin; query < end; ++query) {
        const int64_t row = (sample * call.num_queries + query) * call.num_heads + n, i = query - begin;
        finish_row(call, head, query, rows[i], out + i * call.head_width, row_at<decltype(type)>(call.out, row),
                   call.prior_out.data ? row_at<const Prior>(call.prior_out, row) : nullptr);
      }
    });
  });
}

void forward(const Attention8bit &call, int64_t head, int64_t begin, int64_t end, const PackedHead &packed,
             const Attention8bitScratch &scratch) {
  const int64_t width = call.head_width, num_rows = end - begin;
  const int64_t num_visible = visible_keys(call, head / call.num_heads);
  const int8_t *q = call.q.codes + (head * call.num_queries + begin) * width;
  const float *q_scales = call.q.scales + head * call.q.num_blocks;
  const float scale = (call.scale < 0.0f ? -call.scale : call.scale) * kLog2E;
  Row rows[kBlockRows];
  for (int64_t r = 0; r < num_rows; ++r) rows[r].scale = q_scales[(begin + r) / call.q.tokens_per_scale] * scale;
  for (int64_t i = 0; i < num_rows * width; ++i) scratch.rows[i] = static_cast<uint8_t>(q[i] + kShift);
  __builtin_memset(scratch.out, 0, static_cast<size_t>(num_rows * width) * sizeof(float));
  for (int64_t tile = 0; tile * call.tile < num_visible; ++tile) {
    const int64_t left = num_visible - tile * call.tile, count = left < call.tile ? left : call.tile;
    for (int64_t r = 0; r < num_rows; r += kRowsAtOnce) {
      attend_tile(call, head, tile, count, packed, scratch.rows + r * width,
                  num_rows - r < kRowsAtOnce ? num_rows - r : kRowsAtOnce, rows + r, scratch.out + r * width, scratch);
    }
  }
  finish_rows(call, head, begin, end, rows, scratch.out);
}

}  // namespace

extern const Attention8bitKernels attention_8bit_kernels = {pack, forward};

}  // namespace WK_ISA
}  // namespace wk
