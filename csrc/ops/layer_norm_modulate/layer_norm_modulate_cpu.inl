// SPDX-License-Identifier: Apache-2.0
// A row comes from memory once and is read again from the first cache: mean, variance about it, result.
#include "common/cpu/codes.h"
#include "ops/layer_norm_modulate/layer_norm_modulate_cpu.h"

namespace wk {
namespace WK_ISA {
namespace {

struct Statistics {
  float mean;
  float scale;  // 1 / sqrt(var + eps)
};

template <class T>
Statistics statistics(const T *x, int64_t width, float eps) {
  const float count = static_cast<float>(width);
  const float mean = sum_over(width, [&](int64_t i, auto extent) { return load(x + i, extent); }) / count;
  const float squares = sum_over(width, [&](int64_t i, auto extent) {
    const Floats distance = kept(load(x + i, extent) - splat(mean), extent);
    return distance * distance;
  });
  return {mean, 1.0f / root(squares / count + eps)};
}

int64_t table_row(const LayerNormModulateInputs &in, int64_t sample, int64_t token) {
  return sample * in.index.num_rows + lookup(in.index, sample, token);
}

// Calls take(i, value, extent) with each vector of the result.
template <class T, class Take>
WK_INLINE void each_result(const T *x, const float *scale, const float *shift, const LayerNormModulateInputs &in,
                           const Take &take) {
  const float *weight = in.weight, *bias = in.bias;
  const Statistics stats = statistics(x, in.x.width, in.eps);
  for_each_vector(in.x.width, [&](int64_t i, auto extent) {
    const Floats normal = (load(x + i, extent) - splat(stats.mean)) * splat(stats.scale);
    const Floats affine = normal * load(weight + i, extent) + load(bias + i, extent);
    take(i, affine * (splat(1.0f) + load(scale + i, extent)) + load(shift + i, extent), extent);
  });
}

template <class Out, class T>
void forward_row(Out *out, const T *x, const float *scale, const float *shift, const LayerNormModulateInputs &in) {
  each_result(x, scale, shift, in, [&](int64_t i, Floats value, auto extent) { store(out + i, value, extent); });
}

// The result's largest size; the result itself goes to `row`.
template <class T>
float forward_row_and_size(float *row, const T *x, const float *scale, const float *shift,
                           const LayerNormModulateInputs &in) {
  Words sizes = {};
  each_result(x, scale, shift, in, [&](int64_t i, Floats value, auto extent) {
    store(row + i, value, extent);
    sizes = larger(sizes, size_bits(kept(value, extent)));
  });
  return largest(sizes);
}

// With n the normalised row and g the gradient of n: grad_x = r * (g - mean(g) - n * mean(g * n)).
template <class T>
void backward_row(T *grad_x, const float *grad_normal, const T *x, const Statistics &stats, int64_t width) {
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
    store(grad_x + i, rest * splat(stats.scale), extent);
  });
}

// Adds the token's gradients of scale, shift, weight and bias, and leaves the gradient of the normalised row.
template <bool kTables, bool kVectors, class Out, class T>
void parameter_gradients(float *grad_normal, const LayerNormModulateSums &sums, const Out *grad_out, const T *x,
                         const float *scale, const Statistics &stats, const LayerNormModulateInputs &in) {
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

void forward(const LayerNormModulateForward &call, int64_t begin, int64_t end) {
  with_dtype(call.in.x.dtype, [&](auto x_type) {
    with_dtype(call.out.dtype, [&](auto out_type) {
      using T = decltype(x_type);
      using Out = decltype(out_type);
      for (int64_t token = begin; token < end; ++token) {
        const int64_t row = table_row(call.in, token / call.in.length, token % call.in.length);
        forward_row(row_at<Out>(call.out, token), row_at<const T>(call.in.x, token),
                    row_at<const float>(call.in.scale, row), row_at<const float>(call.shift, row), call.in);
      }
    });
  });
}

void forward_8bit(const LayerNormModulate8bit &call, int64_t begin, int64_t end, float *row) {
  const LayerNormModulateInputs &in = call.in;
  with_dtype(in.x.dtype, [&](auto x_type) {
    with_codes(call.out.dtype, [&](auto code) {
      for (int64_t token = begin; token < end; ++token) {
        const int64_t table = table_row(in, token / in.length, token % in.length);
        const float size =
            forward_row_and_size(row, row_at<const decltype(x_type)>(in.x, token), row_at<const float>(in.scale, table),
                                 row_at<const float>(call.shift, table), in);
        const float scale = scale_for(size, limit_of(code));
        call.out_scale[token] = scale;
        encode_row(row_at<decltype(code)>(call.out, token), row, scale, in.x.width);
      }
    });
  });
}

template <class T, class Out>
void backward_tokens(const LayerNormModulateBackward &call, int64_t sample, int64_t begin, int64_t end,
                     const LayerNormModulateSums &sums, float *grad_normal) {
  const LayerNormModulateInputs &in = call.in;
  const int64_t width = in.x.width;
  for (int64_t token = begin; token < end; ++token) {
    const int64_t at = sample * in.length + token;
    const T *x = row_at<const T>(in.x, at);
    const int64_t table = lookup(in.index, sample, token) * width;
    LayerNormModulateSums row_sums = sums;
    if (sums.scale) {
      row_sums.scale += table;
      row_sums.shift += table;
    }
    const Statistics stats = statistics(x, width, in.eps);
    const auto add =
        sums.scale
            ? (sums.weight ? parameter_gradients<true, true, Out, T> : parameter_gradients<true, false, Out, T>)
            : (sums.weight ? parameter_gradients<false, true, Out, T> : parameter_gradients<false, false, Out, T>);
    add(grad_normal, row_sums, row_at<const Out>(call.grad_out, at), x,
        row_at<const float>(in.scale, table_row(in, sample, token)), stats, in);
    if (call.grad_x.data) backward_row(row_at<T>(call.grad_x, at), grad_normal, x, stats, width);
  }
}

void backward(const LayerNormModulateBackward &call, int64_t sample, int64_t begin, int64_t end,
              const LayerNormModulateSums &sums, float *row) {
  with_dtype(call.in.x.dtype, [&](auto x_type) {
    with_dtype(call.grad_out.dtype, [&](auto out_type) {
      backward_tokens<decltype(x_type), decltype(out_type)>(call, sample, begin, end, sums, row);
    });
  });
}

}  // namespace

extern const LayerNormModulateKernels layer_norm_modulate_kernels = {forward, forward_8bit, backward};

}  // namespace WK_ISA
}  // namespace wk
