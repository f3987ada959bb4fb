// SPDX-License-Identifier: Apache-2.0
#include "common/cpu/exp.h"
#include "ops/merge_attention/merge_attention_cpu.h"

namespace wk {
namespace WK_ISA {
namespace {

constexpr float kLog2 = 0.693147181f;

// How much each part of a row counts, all lanes alike, and the merged log-sum-exp. Without the other part: 1.
struct Merge {
  bool has_a, has_b;  // keys
  Floats weight_a, weight_b;
  float lse;
};

// -log(weight) for a weight between 1/2 and 1: 2 atanh((1 - weight) / (1 + weight)), from its series to 1e-8.
WK_INLINE Floats minus_log(Floats weight) {
  const Floats ratio = (splat(1.0f) - weight) / (splat(1.0f) + weight);
  const Floats square = ratio * ratio;
  Floats series = splat(1.0f / 13);
  for (int odd = 11; odd > 0; odd -= 2) series = series * square + splat(1.0f / static_cast<float>(odd));
  return (ratio + ratio) * series;
}

WK_INLINE Merge merge_of(float lse_a, float lse_b) {
  const float no_keys = -__builtin_inff();
  const bool has_a = lse_a != no_keys, has_b = lse_b != no_keys;
  if (!has_a || !has_b) return {has_a, has_b, splat(1.0f), splat(1.0f), has_a ? lse_a : lse_b};
  const Floats weight_a = sigmoid<float>(splat(lse_a - lse_b)), weight_b = sigmoid<float>(splat(lse_b - lse_a));
  // Equal ones apart: where both are infinite their difference says nothing.
  if (lse_a == lse_b) return {has_a, has_b, weight_a, weight_b, lse_a + kLog2};
  const float lse = lse_a > lse_b ? lse_a + minus_log(weight_a)[0] : lse_b + minus_log(weight_b)[0];
  return {has_a, has_b, weight_a, weight_b, lse};
}

template <class To, class From>
WK_INLINE void scale_row(To *to, const From *from, Floats factor, int64_t width) {
  for_each_vector(width, [&](int64_t i, auto extent) { store(to + i, load(from + i, extent) * factor, extent); });
}

template <class To>
WK_INLINE void clear_row(To *to, int64_t width) {
  for_each_vector(width, [&](int64_t i, auto extent) { store(to + i, zeros(), extent); });
}

// What a part without keys holds is not read.
template <class A, class B>
WK_INLINE void merge_row(A *out, const A *a, const B *b, const Merge &merge, int64_t width) {
  if (merge.has_a && merge.has_b) {
    for_each_vector(width, [&](int64_t i, auto extent) {
      store(out + i, load(a + i, extent) * merge.weight_a + load(b + i, extent) * merge.weight_b, extent);
    });
  } else if (merge.has_a) {
    scale_row(out, a, merge.weight_a, width);
  } else if (merge.has_b) {
    scale_row(out, b, merge.weight_b, width);
  } else {
    clear_row(out, width);
  }
}

template <class A, class B>
void forward_as(const MergeAttentionForward &call, int64_t begin, int64_t end) {
  const MergeAttentionForward c = call;
  for (int64_t token = begin; token < end; ++token) {
    for (int64_t head = 0; head < c.num_heads; ++head) {
      const int64_t row = token * c.num_heads + head;
      const int64_t at = (token / c.length * c.num_heads + head) * c.length + token % c.length;
      const Merge merge = merge_of(c.lse_a[at], c.lse_b[at]);
      merge_row(row_at<A>(c.out, row), row_at<const A>(c.out_a, row), row_at<const B>(c.out_b, row), merge,
                c.out.width);
      c.lse[at] = merge.lse;
    }
  }
}

// The gradient of one part's row: zeros for a part without keys.
template <class To, class From>
WK_INLINE void weigh_gradient(To *to, const From *grad_out, bool has_keys, Floats weight, int64_t width) {
  if (grad_out && has_keys) {
    scale_row(to, grad_out, weight, width);
  } else {
    clear_row(to, width);
  }
}

// The gradient of lse_a through out, and minus that of lse_b: d weight_a = weight_a * weight_b = -d weight_b.
template <class A, class B>
WK_INLINE float gradient_of_weights(const A *grad_out, const A *a, const B *b, const Merge &merge, int64_t width) {
  if (!grad_out || !merge.has_a || !merge.has_b) return 0.0f;
  const float total = sum_over(width, [&](int64_t i, auto extent) {
    return load(grad_out + i, extent) * (load(a + i, extent) - load(b + i, extent));
  });
  return merge.weight_a[0] * merge.weight_b[0] * total;
}

template <class A, class B>
void backward_as(const MergeAttentionBackward &call, int64_t begin, int64_t end) {
  const MergeAttentionBackward c = call;
  const int64_t width = c.out_a.width;
  for (int64_t token = begin; token < end; ++token) {
    for (int64_t head = 0; head < c.num_heads; ++head) {
      const int64_t row = token * c.num_heads + head;
      const int64_t at = (token / c.length * c.num_heads + head) * c.length + token % c.length;
      const Merge merge = merge_of(c.lse_a[at], c.lse_b[at]);
      const A *grad_out = c.grad_out.data ? row_at<const A>(c.grad_out, row) : nullptr;
      if (c.grad_out_a.data) weigh_gradient(row_at<A>(c.grad_out_a, row), grad_out, merge.has_a, merge.weight_a, width);
      if (c.grad_out_b.data) weigh_gradient(row_at<B>(c.grad_out_b, row), grad_out, merge.has_b, merge.weight_b, width);
      if (!c.grad_lse_a && !c.grad_lse_b) continue;
      const float shift =
          gradient_of_weights(grad_out, row_at<const A>(c.out_a, row), row_at<const B>(c.out_b, row), merge, width);
      const float grad_lse = c.grad_lse ? c.grad_lse[at] : 0.0f;
      if (c.grad_lse_a) c.grad_lse_a[at] = (merge.has_a ? merge.weight_a[0] * grad_lse : 0.0f) + shift;
      if (c.grad_lse_b) c.grad_lse_b[at] = (merge.has_b ? merge.weight_b[0] * grad_lse : 0.0f) - shift;
    }
  }
}

void forward(const MergeAttentionForward &call, int64_t begin, int64_t end) {
  with_dtype(call.out_a.dtype, [&](auto a) {
    with_dtype(call.out_b.dtype, [&](auto b) { forward_as<decltype(a), decltype(b)>(call, begin, end); });
  });
}

void backward(const MergeAttentionBackward &call, int64_t begin, int64_t end) {
  with_dtype(call.out_a.dtype, [&](auto a) {
    with_dtype(call.out_b.dtype, [&](auto b) { backward_as<decltype(a), decltype(b)>(call, begin, end); });
  });
}

}  // namespace

extern const MergeAttentionKernels merge_attention_kernels = {forward, backward};

}  // namespace WK_ISA
}  // namespace wk
