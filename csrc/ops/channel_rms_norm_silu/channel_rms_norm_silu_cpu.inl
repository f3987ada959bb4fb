// SPDX-License-Identifier: Apache-2.0
// Planes: vector lanes are positions. A block of positions of all channels is read once, copied to dense scratch memory
// in the second cache (planes are often a power of two apart and would evict each other), and finished from there.
// Rows: vector lanes are channels, one position at a time.
#include "common/cpu/channel_norm.h"
#include "common/cpu/stream.h"
#include "ops/channel_rms_norm_silu/channel_rms_norm_silu_cpu.h"

namespace wk {
namespace WK_ISA {
namespace {

template <class T>
T *at(const ChannelView &view, int64_t sample, int64_t position) {
  return reinterpret_cast<T *>(view.data) + sample * view.batch_stride + position * view.position_stride;
}

// Derivative of the activation at `value`.
template <bool kSilu>
WK_INLINE Floats slope(Floats value) {
  if (!kSilu) return splat(1.0f);
  const Floats gate = sigmoid<float>(value);
  return gate * (splat(1.0f) + value * (splat(1.0f) - gate));
}

// Where the norm is clamped it is a constant, and no gradient flows through it.
WK_INLINE Floats through_norm(Floats gradient, Floats norm) {
  return select(norm > splat(kMinNorm), gradient, zeros());
}

// ---- planes ----

// Copies kVectors vectors of all channels to values[C, n] and leaves the clamped norm of each position.
template <int kVectors, class T, class Extent>
WK_INLINE void read_columns(const T *x, int64_t channel_stride, int64_t num_channels, int64_t count, float *values,
                            float *norm, Extent extent) {
  Floats squares[kVectors] = {};
  for (int64_t c = 0; c < num_channels; ++c, x += channel_stride, values += count) {
    for (int k = 0; k < kVectors; ++k) {
      const Floats value = load(x + k * kLanes, extent);
      store(values + k * kLanes, value, extent);
      squares[k] += value * value;
    }
  }
  for (int k = 0; k < kVectors; ++k) store(norm + k * kLanes, clamped_norm(squares[k]), extent);
}

// The same for a block of `count` positions.
template <class T>
void read_planes(const T *x, int64_t channel_stride, int64_t num_channels, int64_t count, float *values, float *norm) {
  int64_t i = 0;
  for (; i + 4 * kLanes <= count; i += 4 * kLanes) {
    read_columns<4>(x + i, channel_stride, num_channels, count, values + i, norm + i, Whole{});
  }
  for_each_vector(count - i, [&](int64_t k, auto extent) {
    read_columns<1>(x + i + k, channel_stride, num_channels, count, values + i + k, norm + i + k, extent);
  });
}

template <class T, bool kSilu>
void forward_planes(const ChannelRmsNormSiluCall &call, const ChannelBlock &block, float *scratch) {
  const int64_t count = block.end - block.begin;
  float *scale = scratch, *values = scratch + count;
  read_planes(at<const T>(call.x, block.sample, block.begin), call.x.channel_stride, call.num_channels, count, values,
              scale);
  for_each_vector(count, [&](int64_t i, auto extent) {
    store(scale + i, root_of_count(call.num_channels) / load(scale + i, extent), extent);
  });
  T *out = at<T>(call.out, block.sample, block.begin);
  const T *next = at<const T>(call.x, block.sample, block.end);
  for (int64_t c = 0; c < call.num_channels; ++c, next += call.x.channel_stride) {
    const Floats weight = splat(call.weight[c]);
    const float *value = values + c * count;
    T *plane = out + c * call.out.channel_stride;
    for_each_vector(count, [&](int64_t i, auto extent) {
      if (i % kLineOf<T> == 0) fetch(next + i);
      put(plane + i, activate<T, kSilu>(load(value + i, extent) * load(scale + i, extent) * weight), extent,
          call.is_out_streamed);
    });
  }
}

// With u = x / norm and g the gradient of u: grad_x = (g - u * sum(g * u)) / norm.
template <class T, bool kSilu>
void backward_planes(const ChannelRmsNormSiluCall &call, const ChannelBlock &block, float *scratch,
                     float *grad_weight) {
  const int64_t count = block.end - block.begin, size = call.num_channels * count;
  const Floats factor = root_of_count(call.num_channels);
  float *norm = scratch, *dot = norm + count, *units = dot + count, *grads = units + size;
  read_planes(at<const T>(call.x, block.sample, block.begin), call.x.channel_stride, call.num_channels, count, units,
              norm);
  __builtin_memset(dot, 0, static_cast<size_t>(count) * sizeof(float));
  const T *grad_out = at<const T>(call.grad_out, block.sample, block.begin);
  for (int64_t c = 0; c < call.num_channels; ++c) {
    const Floats weight = splat(call.weight[c]);
    const T *plane = grad_out + c * call.grad_out.channel_stride;
    float *unit_row = units + c * count, *grad_row = grads + c * count;
    const float total = sum_over(count, [&](int64_t i, auto extent) {
      const Floats unit = load(unit_row + i, extent) / load(norm + i, extent);
      const Floats normal = unit * factor;
      const Floats grad_scaled = load(plane + i, extent) * slope<kSilu>(normal * weight);
      const Floats grad = grad_scaled * weight * factor;
      store(unit_row + i, unit, extent);
      store(grad_row + i, grad, extent);
      store(dot + i, load(dot + i, extent) + grad * unit, extent);
      return kept(grad_scaled * normal, extent);
    });
    if (grad_weight) grad_weight[c] += total;
  }
  if (!call.grad_x.data) return;
  T *grad_x = at<T>(call.grad_x, block.sample, block.begin);
  for (int64_t c = 0; c < call.num_channels; ++c) {
    const float *unit_row = units + c * count, *grad_row = grads + c * count;
    T *plane = grad_x + c * call.grad_x.channel_stride;
    for_each_vector(count, [&](int64_t i, auto extent) {
      const Floats norms = load(norm + i, extent);
      const Floats along = through_norm(load(dot + i, extent), norms);
      store(plane + i, (load(grad_row + i, extent) - load(unit_row + i, extent) * along) / norms, extent);
    });
  }
}

// ---- rows ----

template <class T, bool kSilu>
void forward_rows(const ChannelRmsNormSiluCall &call, const ChannelBlock &block) {
  const float *weight = call.weight;
  const bool is_out_streamed = call.is_out_streamed;
  for (int64_t position = block.begin; position < block.end; ++position) {
    const T *x = at<const T>(call.x, block.sample, position);
    T *out = at<T>(call.out, block.sample, position);
    const Floats scale = root_of_count(call.num_channels) / row_norm(x, call.num_channels);
    for_each_vector(call.num_channels, [&](int64_t i, auto extent) {
      put(out + i, activate<T, kSilu>(load(x + i, extent) * scale * load(weight + i, extent)), extent, is_out_streamed);
    });
  }
}

template <class T, bool kSilu>
void backward_row(T *grad_x, float *grad_weight, const T *grad_out, const T *x, const float *weight, float *grads,
                  int64_t num_channels) {
  const Floats norm = row_norm(x, num_channels), factor = root_of_count(num_channels);
  const float dot = sum_over(num_channels, [&](int64_t i, auto extent) {
    const Floats unit = load(x + i, extent) / norm, weights = load(weight + i, extent);
    const Floats normal = unit * factor;
    const Floats grad_scaled = load(grad_out + i, extent) * slope<kSilu>(normal * weights);
    const Floats grad = grad_scaled * weights * factor;
    if (grad_weight) store(grad_weight + i, load(grad_weight + i, extent) + grad_scaled * normal, extent);
    store(grads + i, grad, extent);
    return kept(grad * unit, extent);
  });
  if (!grad_x) return;
  const Floats along = through_norm(splat(dot), norm);
  for_each_vector(num_channels, [&](int64_t i, auto extent) {
    store(grad_x + i, (load(grads + i, extent) - load(x + i, extent) / norm * along) / norm, extent);
  });
}

template <class T, bool kSilu>
void backward_rows(const ChannelRmsNormSiluCall &call, const ChannelBlock &block, float *scratch, float *grad_weight) {
  for (int64_t position = block.begin; position < block.end; ++position) {
    T *grad_x = call.grad_x.data ? at<T>(call.grad_x, block.sample, position) : nullptr;
    backward_row<T, kSilu>(grad_x, grad_weight, at<const T>(call.grad_out, block.sample, position),
                           at<const T>(call.x, block.sample, position), call.weight, scratch, call.num_channels);
  }
}

// ---- choice of type, layout and activation ----

template <bool kSilu>
void forward_block(const ChannelRmsNormSiluCall &call, const ChannelBlock &block, float *scratch) {
  with_dtype(call.dtype, [&](auto type) {
    using T = decltype(type);
    if (call.is_planes) return forward_planes<T, kSilu>(call, block, scratch);
    forward_rows<T, kSilu>(call, block);
  });
}

template <bool kSilu>
void backward_block(const ChannelRmsNormSiluCall &call, const ChannelBlock &block, float *scratch, float *grad_weight) {
  with_dtype(call.dtype, [&](auto type) {
    using T = decltype(type);
    if (call.is_planes) return backward_planes<T, kSilu>(call, block, scratch, grad_weight);
    backward_rows<T, kSilu>(call, block, scratch, grad_weight);
  });
}

void forward(const ChannelRmsNormSiluCall &call, const ChannelBlock &block, float *scratch) {
  call.has_silu ? forward_block<true>(call, block, scratch) : forward_block<false>(call, block, scratch);
  finish_streaming();
}

void backward(const ChannelRmsNormSiluCall &call, const ChannelBlock &block, float *scratch, float *grad_weight) {
  call.has_silu ? backward_block<true>(call, block, scratch, grad_weight)
                : backward_block<false>(call, block, scratch, grad_weight);
}

}  // namespace

extern const ChannelRmsNormSiluKernels channel_rms_norm_silu_kernels = {forward, backward};

}  // namespace WK_ISA
}  // namespace wk
