// SPDX-License-Identifier: Apache-2.0
// One row at a time: it comes from memory once, stays in the first cache, and is read again from there.
#include "common/cpu/rms.h"
#include "common/cpu/stream.h"
#include "ops/rms_norm/rms_norm_cpu.h"

namespace wk {
namespace WK_ISA {
namespace {

template <class T>
void forward_row(T *out, const T *x, const float *weight, int64_t width, float eps, const Ahead<2, T> &next,
                 bool is_out_streamed) {
  const Floats scale = splat(reciprocal_rms(x, width, eps, next, 0));
  for_each_vector(width, [&](int64_t i, auto extent) {
    next.ask(1, i);
    const Floats normal = round_to(load(x + i, extent) * scale, T{});
    put(out + i, normal * load(weight + i, extent), extent, is_out_streamed);
  });
}

// With g = grad_out * weight and r the reciprocal rms: grad_x = r * (g - x * r^2 * mean(g * x)).
template <class T>
void backward_row(T *grad_x, const T *grad_out, const T *x, const float *weight, int64_t width, float eps) {
  const float scale = reciprocal_rms(x, width, eps);
  const float dot = sum_over(width, [&](int64_t i, auto extent) {
    return load(grad_out + i, extent) * load(weight + i, extent) * load(x + i, extent);
  });
  const Floats along_x = splat(scale * scale * dot / static_cast<float>(width));
  for_each_vector(width, [&](int64_t i, auto extent) {
    const Floats g = load(grad_out + i, extent) * load(weight + i, extent);
    store(grad_x + i, splat(scale) * (g - load(x + i, extent) * along_x), extent);
  });
}

template <class T>
void add_weight_gradient(float *grad_weight, const T *grad_out, const T *x, int64_t width, float eps) {
  const Floats scale = splat(reciprocal_rms(x, width, eps));
  for_each_vector(width, [&](int64_t i, auto extent) {
    const Floats normal = round_to(load(x + i, extent) * scale, T{});
    store(grad_weight + i, load(grad_weight + i, extent) + load(grad_out + i, extent) * normal, extent);
  });
}

void forward(const RmsNormForward &call, int64_t begin, int64_t end) {
  with_dtype(call.x.dtype, [&](auto type) {
    using T = decltype(type);
    for (int64_t row = begin; row < end; ++row) {
      const Ahead<2, T> next = {row_at<const T>(call.x, row + 1), call.x.width};
      forward_row(row_at<T>(call.out, row), row_at<const T>(call.x, row), call.weight, call.x.width, call.eps, next,
                  is_streamed<T>(call.out));
    }
  });
  finish_streaming();
}

void backward(const RmsNormBackward &call, int64_t begin, int64_t end, float *grad_weight) {
  with_dtype(call.x.dtype, [&](auto type) {
    using T = decltype(type);
    for (int64_t row = begin; row < end; ++row) {
      const T *grad_out = row_at<const T>(call.grad_out, row);
      const T *x = row_at<const T>(call.x, row);
      if (grad_weight) add_weight_gradient(grad_weight, grad_out, x, call.x.width, call.eps);
      if (call.grad_x.data) {
        backward_row(row_at<T>(call.grad_x, row), grad_out, x, call.weight, call.x.width, call.eps);
      }
    }
  });
}

}  // namespace

extern const RmsNormKernels rms_norm_kernels = {forward, backward};

}  // namespace WK_ISA
}  // namespace wk
