// SPDX-License-Identifier: Apache-2.0
// Flash attention: a few queries meet a tile of keys, their probabilities meet the tile's values, and the products join
// the rows' sums, which are kept relative to the largest score so far.
#include "common/cpu/exp.h"
#include "ops/attention/heads.h"

namespace wk {
namespace WK_ISA {
namespace {

static_assert(kBlockRows % kTileRows == 0 && kTileRows <= kMaxTileRows, "blocks are whole tiles");

// A row's sums are kept relative to a power of 2 that need not be that of its largest score: float32 has room above.
constexpr float kRoom = 20.0f;
constexpr float kInfinity = __builtin_inff();

// ---- packing ----

void pack(const AttentionForward &call, int64_t head, int64_t tile, const PackedHead &packed) {
  const int64_t width = call.head_width, first = tile * kTileKeys;
  const int64_t left = visible_keys(call, head / call.num_heads) - first;
  if (left <= 0) return;
  const int64_t count = left < kTileKeys ? left : kTileKeys;
  with_operand(call.k.dtype, [&](auto operand) {
    with_dtype(call.k.dtype, [&](auto type) {
      using T = decltype(operand);
      using From = const decltype(type);
      From *keys = head_at<From>(call.k, head, call.num_heads) + first * call.k.token_stride;
      From *values = head_at<From>(call.v, head, call.num_heads) + first * call.v.token_stride;
      T *to_keys = reinterpret_cast<T *>(packed.keys), *to_values = reinterpret_cast<T *>(packed.values);
      pack_transposed(to_keys + first * width, keys, call.k.token_stride, count, width);
      pack_lines(to_values + first * width, values, call.v.token_stride, count, rounded_up(count, kColumns), width);
    });
  });
}

// ---- softmax ----

// What one query has seen so far: its sums are multiples of 2^base.
struct Row {
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

// Turns the scores of a row with `count` keys into probabilities relative to its base, and zeros up to `padded`.
// Returns the factor of the row's earlier sums. A NaN anywhere is in the row's sum.
template <class T>
float weigh(T *weights, const float *scores, int64_t count, int64_t padded, float scale, Row *row) {
  Floats most = splat(-kInfinity);
  for_each_vector(
      count, [&](int64_t i, auto extent) { most = at_least(hidden_past(load(scores + i, Whole{}), extent), most); });
  const float largest = scale * largest_lane(most), base = row->base;
  float decay = 1.0f;
  if (!(largest <= base + kRoom)) {
    row->base = largest;
    decay = base == -kInfinity ? 0.0f : power(base - largest);
  }
  const Floats factor = splat(scale), shift = splat(row->base);
  Floats total = zeros();
  for_each_vector(count, [&](int64_t i, auto extent) {
    constexpr int kDegree = sizeof(T) == 4 ? 5 : 4;
    const Floats value = kept(power_of_2<kDegree>(load(scores + i, Whole{}) * factor - shift), extent);
    total += value;
    store(weights + i, value, Whole{});
  });
  for (int64_t i = rounded_up(count, kLanes); i < padded; i += kLanes) store(weights + i, zeros(), Whole{});
  row->sum = row->sum * decay + sum(total);
  return decay;
}

// ---- a block of queries ----

// A few rows of the block meet the first `count` keys of a tile.
template <class T>
void attend_tile(const T *q, const T *keys, const T *values, int64_t count, int64_t width, float scale, Row *rows,
                 float *out, const AttentionScratch &scratch) {
  const int64_t padded = rounded_up(count, kColumns);
  const Product<T> scores = {q, width, keys, kColumns * width, width / kWord<T>, scratch.scores, kTileKeys, nullptr};
  multiply<Side::kByRow>(scores, kTileRows, padded / kColumns);
  T *weights = reinterpret_cast<T *>(scratch.weights);
  float decays[kTileRows];
  for (int64_t r = 0; r < kTileRows; ++r) {
    decays[r] = weigh(weights + r * kTileKeys, scratch.scores + r * kTileKeys, count, padded, scale, rows + r);
  }
  const Product<T> weighted = {weights, kTileKeys, values, kColumns * padded, padded / kWord<T>, out, width, decays};
  multiply<Side::kByRow>(weighted, kTileRows, width / kColumns);
}

void finish_rows(const AttentionForward &call, int64_t head, int64_t begin, int64_t end, const Row *rows,
                 const float *sums) {
  const int64_t width = call.head_width;
  with_dtype(call.out.dtype, [&](auto type) {
    auto *out = head_at<decltype(type)>(call.out, head, call.num_heads);
    for (int64_t query = begin; query < end; ++query) {
      const Row &row = rows[query - begin];
      const bool is_empty = row.sum == 0.0f;
      call.lse[head * call.num_queries + query] =
          static_cast<float>((static_cast<double>(row.base) + static_cast<double>(__builtin_log2f(row.sum))) / kLog2E);
      const Floats share = splat(is_empty ? 0.0f : 1.0f / row.sum);
      for (int64_t i = 0; i < width; i += kLanes) {
        store(out + query * call.out.token_stride + i, load(sums + (query - begin) * width + i, Whole{}) * share,
              Whole{});
      }
    }
  });
}

void forward(const AttentionForward &call, int64_t head, int64_t begin, int64_t end, const PackedHead &packed,
             const AttentionScratch &scratch) {
  const int64_t width = call.head_width, num_rows = end - begin;
  const int64_t num_visible = visible_keys(call, head / call.num_heads);
  const float scale = static_cast<float>((call.scale < 0.0f ? -call.scale : call.scale) * kLog2E);
  Row rows[kBlockRows];
  __builtin_memset(scratch.out, 0, static_cast<size_t>(kBlockRows * width) * sizeof(float));
  with_operand(call.q.dtype, [&](auto operand) {
    using T = decltype(operand);
    T *q = reinterpret_cast<T *>(scratch.rows);
    with_dtype(call.q.dtype, [&](auto type) {
      const auto *from = head_at<const decltype(type)>(call.q, head, call.num_heads) + begin * call.q.token_stride;
      pack_rows(q, from, call.q.token_stride, num_rows, rounded_up(num_rows, kTileRows), width,
                call.scale < 0.0f ? -1.0f : 1.0f);
    });
    for (int64_t first = 0; first < num_visible; first += kTileKeys) {
      const T *keys = reinterpret_cast<const T *>(packed.keys) + first * width;
      const T *values = reinterpret_cast<const T *>(packed.values) + first * width;
      const int64_t count = num_visible - first < kTileKeys ? num_visible - first : kTileKeys;
      for (int64_t r = 0; r < num_rows; r += kTileRows) {
        attend_tile(q + r * width, keys, values, count, width, scale, rows + r, scratch.out + r * width, scratch);
      }
    }
  });
  finish_rows(call, head, begin, end, rows, scratch.out);
}

}  // namespace

extern const AttentionKernels attention_kernels = {kMultipliesBf16, pack, forward};

}  // namespace WK_ISA
}  // namespace wk
