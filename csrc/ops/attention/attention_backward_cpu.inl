// SPDX-License-Identifier: Apache-2.0
// Gradients of attention. A tile of keys meets all queries, block by block: the probabilities come from the
// log-sum-exp, the tile's own gradients are summed in cache, and its share of the queries' joins theirs in memory. So
// there are five products and no other thread writes to the same sums.
//
// With P the probabilities, D = grad_out v^T and delta = sum(grad_out * out) - grad_lse of a query:
//   dS = P * (D - delta), grad_q = scale * dS k, grad_k = scale * dS^T q, grad_v = P^T grad_out.
#include "common/cpu/exp.h"
#include "ops/attention/heads.h"

namespace wk {
namespace WK_ISA {
namespace {

// A product that is added to what is there.
constexpr float kOnes[kGradientKeys] = {
#define WK_ONES_16 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1
    WK_ONES_16, WK_ONES_16, WK_ONES_16, WK_ONES_16, WK_ONES_16,
    WK_ONES_16, WK_ONES_16, WK_ONES_16
#undef WK_ONES_16
};

// Without fused products the roundings of 128 terms are felt where a few keys leave only the difference of this and
// grad_out v^T; so it is summed in the same order, and they cancel. (Baseline, one key, fp32: 4.8e-6 of the largest
// gradient otherwise.)
template <class T>
float dot(const T *a, const T *b, int64_t width) {
  if (kLanes > 4) {
    return sum_over(width, [&](int64_t i, auto extent) { return load(a + i, extent) * load(b + i, extent); });
  }
  float total = 0.0f;
  for (int64_t i = 0; i < width; i += kLanes) {
    const Floats terms = load(a + i, Whole{}) * load(b + i, Whole{});
    for (int64_t k = 0; k < kLanes; ++k) total += terms[k];
  }
  return total;
}

// ---- queries ----

void pack(const AttentionBackward &call, int64_t head, int64_t begin, int64_t end, const PackedQueries &packed) {
  const AttentionForward &in = call.forward;
  const int64_t width = in.head_width, num_rows = end - begin, padded = rounded_up(num_rows, kTileRows);
  float *lse = packed.lse + begin, *delta = packed.delta + begin;
  for (int64_t r = 0; r < padded; ++r) {
    const int64_t at = head * in.num_queries + begin + r;
    lse[r] = r < num_rows ? static_cast<float>(in.lse[at] * kLog2E) : 0.0f;
    delta[r] = r < num_rows && call.grad_lse ? -call.grad_lse[at] : 0.0f;
  }
  with_operand(in.q.dtype, [&](auto operand) {
    with_dtype(in.q.dtype, [&](auto type) {
      using T = decltype(operand);
      using From = const decltype(type);
      const auto words = [&](float *of) { return reinterpret_cast<T *>(of) + begin * width; };
      From *q = head_at<From>(in.q, head, in.num_heads) + begin * in.q.token_stride;
      pack_rows(words(packed.q_rows), q, in.q.token_stride, num_rows, padded, width);
      pack_lines(words(packed.q_lines), q, in.q.token_stride, num_rows, padded, width);
      const int64_t num_grads = call.grad_out.data ? num_rows : 0, stride = call.grad_out.token_stride;
      From *grad = num_grads ? head_at<From>(call.grad_out, head, in.num_heads) + begin * stride : nullptr;
      pack_rows(words(packed.grad_rows), grad, stride, num_grads, padded, width);
      pack_lines(words(packed.grad_lines), grad, stride, num_grads, padded, width);
      From *out = head_at<From>(in.out, head, in.num_heads) + begin * in.out.token_stride;
      for (int64_t r = 0; r < num_grads; ++r) delta[r] += dot(grad + r * stride, out + r * in.out.token_stride, width);
    });
  });
}

// ---- probabilities and their gradient ----

// A word of each column from two rows of them.
WK_INLINE void store_pair(float *to, int64_t i, Floats upper, Floats lower) {
  store(to + i, upper, Whole{});
  store(to + kGradientKeys + i, lower, Whole{});
}
WK_INLINE void store_pair(bf16 *to, int64_t i, Floats upper, Floats lower) {
  const Words words = paired(upper, lower);
  __builtin_memcpy(to + 2 * i, &words, sizeof words);
}

// Of `num_rows` queries, an even number, and `count` keys; zeros up to `padded`.
template <class T>
void differentiate(const GradientScratch &scratch, const float *lse, const float *delta, int64_t num_rows,
                   int64_t count, int64_t padded, float scale) {
  constexpr int kDegree = sizeof(T) == 4 ? 5 : 4;
  const Floats factor = splat(scale);
  for (int64_t r = 0; r < num_rows; r += 2) {
    const int64_t at = r * kGradientKeys;
    const float *scores = scratch.scores + at, *grads = scratch.grads + at;
    T *weights = reinterpret_cast<T *>(scratch.weights) + at, *pairs = reinterpret_cast<T *>(scratch.pairs) + at;
    T *grad_scores = reinterpret_cast<T *>(scratch.grad_scores) + at;
    const Floats shifts[2] = {splat(lse[r]), splat(lse[r + 1])}, deltas[2] = {splat(delta[r]), splat(delta[r + 1])};
    const auto step = [&](int64_t i, auto extent) {
      Floats weight[2], grad[2];
      for (int k = 0; k < 2; ++k) {
        const int64_t here = k * kGradientKeys + i;
        weight[k] = kept(power_of_2<kDegree>(load(scores + here, Whole{}) * factor - shifts[k]), extent);
        grad[k] = kept(weight[k] * (load(grads + here, Whole{}) - deltas[k]), extent);
        if (sizeof(T) == 2) store(grad_scores + here, grad[k], Whole{});
      }
      store_pair(weights, i, weight[0], weight[1]);
      store_pair(pairs, i, grad[0], grad[1]);
    };
    int64_t i = 0;
    for (; i + kLanes <= count; i += kLanes) step(i, Whole{});
    for (; i < padded; i += kLanes) step(i, Part{count > i ? count - i : 0});
  }
}

// ---- a tile of keys ----

template <class T>
void add_block(const AttentionForward &in, const PackedQueries &packed, int64_t begin, int64_t num_rows, int64_t count,
               float *grad_q, const GradientScratch &scratch) {
  const int64_t width = in.head_width, rows = rounded_up(num_rows, kTileRows), padded = rounded_up(count, kColumns);
  const int64_t words = width / kWord<T>, line_words = rows / kWord<T>, columns = width / kColumns;
  const auto block = [&](const float *of) { return reinterpret_cast<const T *>(of) + begin * width; };
  const auto operand = [](const float *of) { return reinterpret_cast<const T *>(of); };
  const Product<T> scores = {block(packed.q_rows), width,  operand(scratch.keys),
                             kColumns * width,     words,  scratch.scores,
                             kGradientKeys,        nullptr};
  multiply<Side::kByRow>(scores, rows, padded / kColumns);
  const Product<T> grads = {block(packed.grad_rows), width,  operand(scratch.values),
                            kColumns * width,        words,  scratch.grads,
                            kGradientKeys,           nullptr};
  multiply<Side::kByRow>(grads, rows, padded / kColumns);
  differentiate<T>(scratch, packed.lse + begin, packed.delta + begin, rows, count, padded,
                   static_cast<float>(in.scale * kLog2E));
  const int64_t stride = kGradientKeys * kWord<T>;
  const Product<T> to_values = {operand(scratch.weights),
                                stride,
                                block(packed.grad_lines),
                                kColumns * rows,
                                line_words,
                                scratch.grad_v,
                                width,
                                kOnes};
  multiply<Side::kByWord>(to_values, padded, columns);
  const Product<T> to_keys = {
      operand(scratch.pairs), stride, block(packed.q_lines), kColumns * rows, line_words, scratch.grad_k, width, kOnes};
  multiply<Side::kByWord>(to_keys, padded, columns);
  // Words of floats are the same either way.
  const float *grad_scores = sizeof(T) == 4 ? scratch.pairs : scratch.grad_scores;
  const Product<T> to_queries = {operand(grad_scores),
                                 kGradientKeys,
                                 operand(scratch.key_lines),
                                 kColumns * padded,
                                 padded / kWord<T>,
                                 grad_q + begin * width,
                                 width,
                                 kOnes};
  multiply<Side::kByRow>(to_queries, rows, columns);
}

// sums * factor to tokens [0, count), zeros to those up to `end`.
template <class To>
void write_rows(To *to, int64_t stride, const float *sums, int64_t count, int64_t end, int64_t width, float factor) {
  for (int64_t r = 0; r < end; ++r) {
    for (int64_t i = 0; i < width; i += kLanes) {
      store(to + r * stride + i, r < count ? load(sums + r * width + i, Whole{}) * splat(factor) : zeros(), Whole{});
    }
  }
}

void add_tile(const AttentionBackward &call, int64_t head, int64_t first, int64_t end, const PackedQueries &packed,
              float *grad_q, const GradientScratch &scratch) {
  const AttentionForward &in = call.forward;
  const int64_t width = in.head_width, left = visible_keys(in, head / in.num_heads) - first;
  const int64_t count = left < 0 ? 0 : left < end - first ? left : end - first, padded = rounded_up(count, kColumns);
  __builtin_memset(scratch.grad_k, 0, static_cast<size_t>(padded * width) * sizeof(float));
  __builtin_memset(scratch.grad_v, 0, static_cast<size_t>(padded * width) * sizeof(float));
  with_operand(in.k.dtype, [&](auto operand) {
    with_dtype(in.k.dtype, [&](auto type) {
      using T = decltype(operand);
      using From = const decltype(type);
      From *keys = head_at<From>(in.k, head, in.num_heads) + first * in.k.token_stride;
      // Without a gradient of the output v must not be seen: zeros times a NaN. The keys stand in for it.
      const Heads &v = call.grad_out.data ? in.v : in.k;
      From *values = head_at<From>(v, head, in.num_heads) + first * v.token_stride;
      pack_transposed(reinterpret_cast<T *>(scratch.keys), keys, in.k.token_stride, count, width);
      pack_transposed(reinterpret_cast<T *>(scratch.values), values, v.token_stride, count, width);
      pack_lines(reinterpret_cast<T *>(scratch.key_lines), keys, in.k.token_stride, count, padded, width);
    });
    for (int64_t begin = 0; begin < in.num_queries && count > 0; begin += kBlockRows) {
      const int64_t rows = in.num_queries - begin < kBlockRows ? in.num_queries - begin : kBlockRows;
      add_block<decltype(operand)>(in, packed, begin, rows, count, grad_q, scratch);
    }
  });
  with_dtype(in.k.dtype, [&](auto type) {
    using To = decltype(type);
    To *grad_k = head_at<To>(call.grad_k, head, in.num_heads) + first * call.grad_k.token_stride;
    To *grad_v = head_at<To>(call.grad_v, head, in.num_heads) + first * call.grad_v.token_stride;
    write_rows(grad_k, call.grad_k.token_stride, scratch.grad_k, count, end - first, width, in.scale);
    write_rows(grad_v, call.grad_v.token_stride, scratch.grad_v, count, end - first, width, 1.0f);
  });
}

void backward(const AttentionBackward &call, int64_t head, int64_t begin, int64_t end, const PackedQueries &packed,
              float *grad_q, const GradientScratch &scratch) {
  const int64_t floats = rounded_up(call.forward.num_queries, kBlockRows) * call.forward.head_width;
  __builtin_memset(grad_q, 0, static_cast<size_t>(floats) * sizeof(float));
  for (int64_t first = begin; first < end; first += kGradientKeys) {
    const int64_t last = first + kGradientKeys < end ? first + kGradientKeys : end;
    add_tile(call, head, first, last, packed, grad_q, scratch);
  }
}

void finish(const AttentionBackward &call, int64_t head, int64_t begin, int64_t end, const float *grad_q,
            int64_t num_parts, int64_t stride) {
  const int64_t width = call.forward.head_width;
  const Floats scale = splat(call.forward.scale);
  with_dtype(call.grad_q.dtype, [&](auto type) {
    auto *to = head_at<decltype(type)>(call.grad_q, head, call.forward.num_heads);
    for (int64_t row = begin; row < end; ++row) {
      for (int64_t i = 0; i < width; i += kLanes) {
        Floats total = load(grad_q + row * width + i, Whole{});
        for (int64_t p = 1; p < num_parts; ++p) total += load(grad_q + p * stride + row * width + i, Whole{});
        store(to + row * call.grad_q.token_stride + i, total * scale, Whole{});
      }
    }
  });
}

}  // namespace

extern const AttentionBackwardKernels attention_backward_kernels = {pack, backward, finish};

}  // namespace WK_ISA
}  // namespace wk
