// SPDX-License-Identifier: Apache-2.0
// The token's cosines and sines are laid out once per token, for one head; every head of the row turns by them.
#include "common/cpu/codes.h"
#include "common/cpu/rms.h"
#include "ops/rms_norm_rope/rms_norm_rope_cpu.h"

namespace wk {
namespace WK_ISA {
namespace {

// Fills turns[0, H) with cosines and turns[H, 2H) with sines. Past the grid: no rotation, and false.
bool load_turns(const RmsNormRopeInputs &in, int64_t token, float *turns) {
  const int64_t head_width = in.x.width / in.num_heads;
  const int64_t rows = in.axes[1].extent, columns = in.axes[2].extent;
  if (token >= in.axes[0].extent * rows * columns) return false;
  const int64_t position[3] = {token / (rows * columns), token / columns % rows, token % columns};
  float *cosines = turns, *sines = turns + head_width;
  for (int k = 0; k < 3; ++k) {
    const RopeAxis &axis = in.axes[k];
    const size_t bytes = static_cast<size_t>(axis.width) * sizeof(float);
    __builtin_memcpy(cosines, axis.cosines + position[k] * axis.width, bytes);
    __builtin_memcpy(sines, axis.sines + position[k] * axis.width, bytes);
    cosines += axis.width;
    sines += axis.width;
  }
  return true;
}

// Calls take(i, value, extent) with each vector of a head: x * scale, rounded as a Rounded is, weighted and turned.
// Where nothing turns, `turns` is null and the head may be the whole row.
template <class Rounded, class T, class Take>
WK_INLINE void each_of_head(const T *x, const float *weight, Floats scale, const float *turns, int64_t width,
                            const Take &take) {
  const auto weighted = [&](int64_t i, auto extent) {
    return round_to(load(x + i, extent) * scale, Rounded{}) * load(weight + i, extent);
  };
  if (!turns) {
    for_each_vector(width, [&](int64_t i, auto extent) { take(i, weighted(i, extent), extent); });
    return;
  }
  for_each_vector(width, [&](int64_t i, auto extent) {
    const Floats value = weighted(i, extent);
    const Floats cosines = load(turns + i, extent), sines = load(turns + width + i, extent);
    take(i, value * cosines + swap_pairs(value) * sines, extent);
  });
}

// The same for a row, whose scale it finds.
template <class Rounded, class T, class Take>
WK_INLINE void each_of_row(const T *x, const RmsNormRopeInputs &in, const float *turns, const Take &take) {
  const Floats scale = splat(reciprocal_rms(x, in.x.width, in.eps));
  const int64_t width = in.x.width, head_width = turns ? width / in.num_heads : width;
  const float *weight = in.weight;
  for (int64_t head = 0; head < width; head += head_width) {
    each_of_head<Rounded>(x + head, weight + head, scale, turns, head_width,
                          [&](int64_t i, Floats value, auto extent) { take(head + i, value, extent); });
  }
}

template <class T>
void forward_row(T *out, const T *x, const RmsNormRopeInputs &in, const float *turns, const Ahead<1, T> &next) {
  each_of_row<T>(x, in, turns, [&](int64_t i, Floats value, auto extent) {
    next.ask(0, i);
    store(out + i, value, extent);
  });
}

template <class T>
void add_row(float *sums, const T *x, const RmsNormRopeInputs &in, const float *turns, const Ahead<1, T> &next) {
  each_of_row<float>(x, in, turns, [&](int64_t i, Floats value, auto extent) {
    next.ask(0, i);
    store(sums + i, load(sums + i, extent) + value, extent);
  });
}

// Tokens [first, first + count) of a sample, whole blocks of scales: they come from memory for the scales of their
// rows, and again from a near cache, a head at a time.
template <class T>
void encode_tokens(const RmsNormRope8bit &call, int64_t sample, int64_t first, int64_t count, float *memory) {
  const RmsNormRopeInputs &in = call.in;
  const int64_t head_width = in.x.width / in.num_heads, per_scale = call.tokens_per_scale;
  const int64_t num_scales = (count + per_scale - 1) / per_scale, row = sample * in.length + first;
  // Tokens of a sample are equally far apart. Looking each up for each head would cost four divisions of integers.
  const T *rows = row_at<const T>(in.x, row);
  const int64_t stride = in.x.inner_stride;
  float *values = memory, *turns = values + count * head_width, *row_scales = turns + 2 * count * head_width;
  int64_t num_turned = 0;
  for (int64_t k = 0; k < count; ++k) {
    row_scales[k] = reciprocal_rms(rows + k * stride, in.x.width, in.eps);
    num_turned += load_turns(in, first + k, turns + 2 * k * head_width);
  }
  for (int64_t head = 0; head < in.num_heads; ++head) {
    const int64_t column = head * head_width, at = sample * in.num_heads + head;
    const float *weight = in.weight + column, *mean = call.mean + at * head_width;
    int8_t *codes = call.out + (at * in.length + first) * head_width;
    float *scales = call.out_scale + at * call.num_blocks + first / per_scale;
    // All scales before the first code: the way from a row's sizes to its scale is long, and rows go it side by side.
    for (int64_t block = 0; block < num_scales; ++block) {
      const int64_t end = (block + 1) * per_scale < count ? (block + 1) * per_scale : count;
      Words sizes = {};
      for (int64_t k = block * per_scale; k < end; ++k) {
        const Ahead<1, T, 2> next = {rows + (count + k) * stride + column, head_width};
        float *to = values + k * head_width;
        ask_to_write(codes + k * head_width, head_width);
        each_of_head<float>(rows + k * stride + column, weight, splat(row_scales[k]),
                            k < num_turned ? turns + 2 * k * head_width : nullptr, head_width,
                            [&](int64_t i, Floats value, auto extent) {
                              next.ask(0, i);
                              const Floats rest = value - load(mean + i, extent);
                              store(to + i, rest, extent);
                              sizes = larger(sizes, size_bits(kept(rest, extent)));
                            });
      }
      scales[block] = scale_for(largest(sizes), limit_of(int8_t{}));
    }
    for (int64_t block = 0; block < num_scales; ++block) {
      const int64_t begin = block * per_scale, end = begin + per_scale < count ? begin + per_scale : count;
      encode_row(codes + begin * head_width, values + begin * head_width, scales[block], (end - begin) * head_width);
    }
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
      const Ahead<1, T> next = {row_at<const T>(call.in.x, token + 1), call.in.x.width};
      forward_row(row_at<T>(call.out, token), row_at<const T>(call.in.x, token), call.in, is_turned ? turns : nullptr,
                  next);
    }
  });
}

void sum_tokens(const RmsNormRopeInputs &in, int64_t begin, int64_t end, float *turns, float *sums) {
  with_dtype(in.x.dtype, [&](auto type) {
    using T = decltype(type);
    for (int64_t token = begin; token < end; ++token) {
      const bool is_turned = load_turns(in, token % in.length, turns);
      const Ahead<1, T> next = {row_at<const T>(in.x, token + 1), in.x.width};
      add_row(sums, row_at<const T>(in.x, token), in, is_turned ? turns : nullptr, next);
    }
  });
}

void forward_8bit(const RmsNormRope8bit &call, int64_t begin, int64_t end, float *memory) {
  with_dtype(call.in.x.dtype, [&](auto type) {
    const int64_t num_pieces = (call.in.length + call.tokens_per_piece - 1) / call.tokens_per_piece;
    for (int64_t piece = begin; piece < end; ++piece) {
      const int64_t first = piece % num_pieces * call.tokens_per_piece, left = call.in.length - first;
      encode_tokens<decltype(type)>(call, piece / num_pieces, first,
                                    left < call.tokens_per_piece ? left : call.tokens_per_piece, memory);
    }
  });
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

extern const RmsNormRopeKernels rms_norm_rope_kernels = {forward, sum_tokens, forward_8bit, backward};

}  // namespace WK_ISA
}  // namespace wk
