// SPDX-License-Identifier: Apache-2.0
// The token's cosines and sines are laid out once per token, for one head; every head of the row turns by them.
#include "common/cpu/rms.h"
#include "common/cpu/stream.h"
#include "ops/rms_norm_rope/turns.h"

namespace wk {
namespace WK_ISA {
namespace {

// Each head: x * scale, rounded as x is, weighted and turned. Where nothing turns, `turns` is null.
template <class T>
void forward_row(T *out, const T *x, const RmsNormRopeInputs &in, const float *turns, const Ahead<2, T> &next,
                 bool is_out_streamed) {
  const Floats scale = splat(reciprocal_rms(x, in.x.width, in.eps, next, 0));
  const int64_t width = in.x.width, head_width = width / in.num_heads;
  const float *weight = in.weight;
  const auto weighted = [&](int64_t i, auto extent) {
    next.ask(1, i);
    return round_to(load(x + i, extent) * scale, T{}) * load(weight + i, extent);
  };
  if (!turns) {
    for_each_vector(width, [&](int64_t i, auto extent) { put(out + i, weighted(i, extent), extent, is_out_streamed); });
    return;
  }
  for (int64_t head = 0; head < width; head += head_width) {
    for_each_vector(head_width, [&](int64_t i, auto extent) {
      const Floats value = weighted(head + i, extent);
      const Floats cosines = load(turns + i, extent), sines = load(turns + head_width + i, extent);
      put(out + head + i, value * cosines + swap_pairs(value) * sines, extent, is_out_streamed);
    });
  }
}

// The rotation's transpose turns the other way.
template <class T>
void turn_back(float *grad_scaled, const T *grad_out, const RmsNormRopeInputs &in, const float *turns) {
  const int64_t width = in.x.width, head_width = width / in.num_heads;
  if (!turns) {
    for_each_vector(width, [&](int64_t i, auto extent) { store(grad_scaled + i, load(grad_out + i, extent), extent); });
    return;
  }
  for (int64_t head = 0; head < width; head += head_width) {
    for_each_vector(head_width, [&](int64_t i, auto extent) {
      const Floats grad = load(grad_out + head + i, extent);
      const Floats cosines = load(turns + i, extent), sines = load(turns + head_width + i, extent);
      store(grad_scaled + head + i, grad * cosines - swap_pairs(grad) * sines, extent);
    });
  }
}

// With g = grad_scaled * weight and r the reciprocal rms: grad_x = r * (g - x * r^2 * mean(g * x)).
template <class T>
void backward_row(T *grad_x, float *grad_weight, const float *grad_scaled, const T *x, const RmsNormRopeInputs &in) {
  const int64_t width = in.x.width;
  const float *weight = in.weight;
  const float scale = reciprocal_rms(x, width, in.eps);
  if (grad_weight) {
    for_each_vector(width, [&](int64_t i, auto extent) {
      const Floats normal = round_to(load(x + i, extent) * splat(scale), T{});
      store(grad_weight + i, load(grad_weight + i, extent) + load(grad_scaled + i, extent) * normal, extent);
    });
  }
  if (!grad_x) return;
  const auto grad_normal = [&](int64_t i, auto extent) {
    return load(grad_scaled + i, extent) * load(weight + i, extent);
  };
  const float dot =
      sum_over(width, [&](int64_t i, auto extent) { return grad_normal(i, extent) * load(x + i, extent); });
  const Floats along_x = splat(scale * scale * dot / static_cast<float>(width));
  for_each_vector(width, [&](int64_t i, auto extent) {
    store(grad_x + i, splat(scale) * (grad_normal(i, extent) - load(x + i, extent) * along_x), extent);
  });
}

void forward(const RmsNormRopeForward &call, int64_t begin, int64_t end, float *turns) {
  with_dtype(call.in.x.dtype, [&](auto type) {
    using T = decltype(type);
    for (int64_t token = begin; token < end; ++token) {
      const bool is_turned = load_turns(call.in, token % call.in.length, turns);
      const Ahead<2, T> next = {row_at<const T>(call.in.x, token + 1), call.in.x.width};
      forward_row(row_at<T>(call.out, token), row_at<const T>(call.in.x, token), call.in, is_turned ? turns : nullptr,
                  next, is_streamed<T>(call.out));
    }
  });
  finish_streaming();
}

void backward(const RmsNormRopeBackward &call, int64_t begin, int64_t end, float *turns, float *row,
              float *grad_weight) {
  with_dtype(call.in.x.dtype, [&](auto type) {
    using T = decltype(type);
    for (int64_t token = begin; token < end; ++token) {
      const bool is_turned = load_turns(call.in, token % call.in.length, turns);
      turn_back(row, row_at<const T>(call.grad_out, token), call.in, is_turned ? turns : nullptr);
      backward_row(call.grad_x.data ? row_at<T>(call.grad_x, token) : nullptr, grad_weight, row,
                   row_at<const T>(call.in.x, token), call.in);
    }
  });
}

}  // namespace

extern const RmsNormRopeKernels rms_norm_rope_kernels = {forward, backward};

}  // namespace WK_ISA
}  // namespace wk
