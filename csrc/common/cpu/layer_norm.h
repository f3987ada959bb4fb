// SPDX-License-Identifier: Apache-2.0
// LayerNorm with modulation, a row at a time. A row comes from memory once and is read again from the first cache:
// mean, variance about it, result.
#pragma once
#include "common/cpu/codes.h"
#include "common/layer_norm.h"

namespace wk {
namespace WK_ISA {

struct Statistics {
  float mean;
  float scale;  // 1 / sqrt(var + eps)
};

// The first pass that asks for what lies ahead; the result is the second.
template <class T, class Next = NothingAhead>
Statistics statistics_about(float mean, const T *x, int64_t width, float eps, const Next &next = {}) {
  const float squares = sum_over(width, [&](int64_t i, auto extent) {
    next.ask(0, i);
    const Floats distance = kept(load(x + i, extent) - splat(mean), extent);
    return distance * distance;
  });
  return {mean, 1.0f / root(squares / static_cast<float>(width) + eps)};
}

template <class T, class Next = NothingAhead>
Statistics statistics(const T *x, int64_t width, float eps, const Next &next = {}) {
  const float sum = sum_over(width, [&](int64_t i, auto extent) { return load(x + i, extent); });
  return statistics_about(sum / static_cast<float>(width), x, width, eps, next);
}

// The row of scale, shift and gate that token `token` of sample `sample` reads.
WK_INLINE int64_t table_row(const LayerNormInputs &in, int64_t sample, int64_t token) {
  return sample * in.index.num_rows + lookup(in.index, sample, token);
}
// The same for a token of all B * L.
WK_INLINE int64_t table_row(const LayerNormInputs &in, int64_t token) {
  return table_row(in, token / in.length, token % in.length);
}

// Calls take(i, value, extent) with each vector of the result. `table` is the token's table_row.
template <class T, class Take>
WK_INLINE void each_result(const T *x, const Statistics &stats, int64_t table, const LayerNormInputs &in,
                           const Take &take) {
  const float *weight = in.weight, *bias = in.bias;
  const float *scale = row_at<const float>(in.scale, table), *shift = row_at<const float>(in.shift, table);
  const auto normal = [&](int64_t i, auto extent) {
    return (load(x + i, extent) - splat(stats.mean)) * splat(stats.scale);
  };
  if (in.is_affine && in.is_modulated) {
    for_each_vector(in.x.width, [&](int64_t i, auto extent) {
      const Floats affine = normal(i, extent) * load(weight + i, extent) + load(bias + i, extent);
      take(i, affine * (splat(1.0f) + load(scale + i, extent)) + load(shift + i, extent), extent);
    });
    return;
  }
  // Of one pair half as many bytes take up the first cache.
  const float *gain = in.is_affine ? weight : scale, *offset = in.is_affine ? bias : shift;
  const Floats one = splat(in.is_affine ? 0.0f : 1.0f);
  for_each_vector(in.x.width, [&](int64_t i, auto extent) {
    take(i, normal(i, extent) * (one + load(gain + i, extent)) + load(offset + i, extent), extent);
  });
}

template <class Out, class T, class Next = NothingAhead>
void normalise_row(Out *out, const T *x, const Statistics &stats, int64_t table, const LayerNormInputs &in,
                   bool is_out_streamed, const Next &next = {}) {
  each_result(x, stats, table, in, [&](int64_t i, Floats value, auto extent) {
    next.ask(1, i);
    put(out + i, value, extent, is_out_streamed);
  });
}

// Writes the codes of the result and returns their scale. `row` is memory for the result itself.
template <class Code, class T, class Next = NothingAhead>
float normalise_and_encode_row(Code *codes, float *row, const T *x, const Statistics &stats, int64_t table,
                               const LayerNormInputs &in, bool is_out_streamed, const Next &next = {}) {
  Words sizes = {};
  each_result(x, stats, table, in, [&](int64_t i, Floats value, auto extent) {
    next.ask(1, i);
    store(row + i, value, extent);
    sizes = larger(sizes, size_bits(kept(value, extent)));
  });
  const float scale = scale_for(largest(sizes), limit_of(Code{}));
  encode_row(codes, row, scale, in.x.width, is_out_streamed, next, 2);
  return scale;
}

// With n the normalised row and g the gradient of n: grad_x = r * (g - mean(g) - n * mean(g * n)).
// Calls take(i, value, extent) with each vector of it.
template <class T, class Take>
WK_INLINE void each_input_gradient(const float *grad_normal, const T *x, const Statistics &stats, int64_t width,
                                   const Take &take) {
  const float count = static_cast<float>(width);
  const auto normal = [&](int64_t i, auto extent) {
    return (load(x + i, extent) - splat(stats.mean)) * splat(stats.scale);
  };
  const Floats mean =
      splat(sum_over(width, [&](int64_t i, auto extent) { return load(grad_normal + i, extent); }) / count);
  const Floats along =
      splat(sum_over(width, [&](int64_t i, auto extent) { return load(grad_normal + i, extent) * normal(i, extent); }) /
            count);
  for_each_vector(width, [&](int64_t i, auto extent) {
    const Floats rest = load(grad_normal + i, extent) - mean - normal(i, extent) * along;
    take(i, rest * splat(stats.scale), extent);
  });
}

// Adds the token's gradients of scale, shift, weight and bias, and leaves the gradient of the normalised row.
template <bool kTables, bool kVectors, class Out, class T>
void add_parameter_gradients(float *grad_normal, const LayerNormSums &sums, const Out *grad_out, const T *x,
                             const float *scale, const Statistics &stats, const LayerNormInputs &in) {
  const float *weight = in.weight, *bias = in.bias;
  const Floats mean = splat(stats.mean), factor = splat(stats.scale);
  float *sum_scale = sums.scale, *sum_shift = sums.shift, *sum_weight = sums.weight, *sum_bias = sums.bias;
  const auto add = [](float *total, Floats value, auto extent) { store(total, load(total, extent) + value, extent); };
  for_each_vector(in.x.width, [&](int64_t i, auto extent) {
    const Floats grad = load(grad_out + i, extent);
    const Floats normal = (load(x + i, extent) - mean) * factor;
    const Floats weights = load(weight + i, extent);
    const Floats grad_affine = grad * (splat(1.0f) + load(scale + i, extent));
    if (kTables) {
      add(sum_scale + i, grad * (normal * weights + load(bias + i, extent)), extent);
      add(sum_shift + i, grad, extent);
    }
    if (kVectors) {
      add(sum_weight + i, grad_affine * normal, extent);
      add(sum_bias + i, grad_affine, extent);
    }
    store(grad_normal + i, grad_affine * weights, extent);
  });
}

// The same for a token of a sample, adding to whichever sums there are.
template <class Out, class T>
void add_token_gradients(float *grad_normal, LayerNormSums sums, const Out *grad_out, const T *x,
                         const Statistics &stats, int64_t sample, int64_t token, const LayerNormInputs &in) {
  if (sums.scale) {
    const int64_t row = lookup(in.index, sample, token) * in.x.width;
    sums.scale += row;
    sums.shift += row;
  }
  const auto add =
      sums.scale
          ? (sums.weight ? add_parameter_gradients<true, true, Out, T> : add_parameter_gradients<true, false, Out, T>)
          : (sums.weight ? add_parameter_gradients<false, true, Out, T>
                         : add_parameter_gradients<false, false, Out, T>);
  const int64_t table = table_row(in, sample, token);
  add(grad_normal, sums, grad_out, x, row_at<const float>(in.scale, table), stats, in);
}

}  // namespace WK_ISA
}  // namespace wk
