// SPDX-License-Identifier: Apache-2.0
// The reciprocal rms of a token is multiplied into its cosines and sines, once for all heads. Where each token has a
// scale of its own, a head's values then stay in registers up to their codes; else they wait in memory for the largest
// of their block.
#include "common/cpu/head.h"
#include "common/cpu/rms.h"
#include "common/heads.h"
#include "ops/rms_norm_rope/turns.h"

namespace wk {
namespace WK_ISA {
namespace {

// The token's turns, times `scale`.
void load_scaled_turns(const RmsNormRopeInputs &in, int64_t token, float scale, float *turns) {
  const int64_t width = in.x.width / in.num_heads;
  if (!load_turns(in, token, turns)) {
    for_each_vector(width, [&](int64_t i, auto extent) {
      store(turns + i, splat(1.0f), extent);
      store(turns + width + i, zeros(), extent);
    });
  }
  for_each_vector(2 * width,
                  [&](int64_t i, auto extent) { store(turns + i, load(turns + i, extent) * scale, extent); });
}

// A vector of a head, weighted and turned.
template <class T, class Extent>
WK_INLINE Floats turned(const T *x, Floats weight, const float *cosines, const float *sines, Extent extent) {
  const Floats value = load(x, extent) * weight;
  return value * load(cosines, extent) + swap_pairs(value) * load(sines, extent);
}

// ---- the mean ----

// So few tokens stay in the first cache with their turns; meanwhile as many next come to the second.
template <class T>
void add_tokens(const RmsNormRope8bit &call, int64_t first, int64_t count, float *sums, float *turns) {
  const RmsNormRopeInputs &in = call.in;
  const int64_t width = in.x.width / in.num_heads, stride = in.x.inner_stride;
  const T *rows = row_at<const T>(in.x, first);
  for (int64_t k = 0; k < count; ++k) {
    const Ahead<2, T, 2> next = {rows + (count + k) * stride, in.x.width};
    const float row_scale = reciprocal_rms(rows + k * stride, in.x.width, in.eps, next, 0);
    call.row_scales[first + k] = row_scale;
    load_scaled_turns(in, (first + k) % in.length, row_scale, turns + 2 * k * width);
  }
  for (int64_t head = 0; head < in.x.width; head += width) {
    for_each_vector(width, [&](int64_t i, auto extent) {
      const Floats weight = load(in.weight + head + i, extent);
      Floats sum = load(sums + head + i, extent);
      if (i % Ahead<2, T>::kStep == 0) {
        for (int64_t k = 0; k < count; ++k) {
          const Ahead<2, T, 2> next = {rows + (count + k) * stride, in.x.width};
          next.ask(1, head + i);
        }
      }
      for (int64_t k = 0; k < count; ++k) {
        const float *cosines = turns + 2 * k * width + i;
        sum += turned(rows + k * stride + head + i, weight, cosines, cosines + width, extent);
      }
      store(sums + head + i, sum, extent);
    });
  }
}

void sum_tokens(const RmsNormRope8bit &call, int64_t begin, int64_t end, float *sums, float *turns) {
  constexpr int64_t kTokens = kTokensOfSum;
  with_dtype(call.in.x.dtype, [&](auto type) {
    for (int64_t token = begin; token < end; token += kTokens) {
      add_tokens<decltype(type)>(call, token, end - token < kTokens ? end - token : kTokens, sums, turns);
    }
  });
}

// ---- a scale for each token ----

// Calls mean(i) for the vector of the mean at channel i of all heads.
template <int64_t kVectors, class T, class Next, class Mean>
WK_INLINE void encode_heads(const RmsNormRope8bit &call, int64_t row, const float *turns, const Next &next, int pass,
                            const Mean &mean) {
  constexpr int64_t kWidth = kVectors * kLanes;
  const RmsNormRopeInputs &in = call.in;
  const T *x = row_at<const T>(in.x, row);
  const float *weight = in.weight;
  const int64_t first = row / in.length * in.num_heads * in.length + row % in.length;
  const bool is_out_streamed = in.x.count * in.x.width >= kStreamedBytes;
  const auto read = [&](int64_t head) {
    return read_head<kVectors>([&](int64_t i) {
      const int64_t at = head * kWidth + i;
      if (i % Next::kStep == 0) next.ask(pass, at);
      return turned(x + at, load(weight + at, Whole{}), turns + i, turns + kWidth + i, Whole{}) - mean(at);
    });
  };
  for_each_head(in.num_heads, read, [&](int64_t head, const auto &values) {
    const int64_t at = first + head * in.length;
    encode_head(call.out + at * kWidth, call.out_scale + at, values, is_out_streamed);
  });
}

template <int64_t kVectors, class T>
void encode_token(const RmsNormRope8bit &call, int64_t row, float *turns) {
  const RmsNormRopeInputs &in = call.in;
  const T *following = row_at<const T>(in.x, row + 1);
  if (call.row_scales) {
    const Ahead<1, T> next = {following, in.x.width};
    const float *mean = call.mean + row / in.length * in.x.width;
    load_scaled_turns(in, row % in.length, call.row_scales[row], turns);
    return encode_heads<kVectors, T>(call, row, turns, next, 0, [=](int64_t i) { return load(mean + i, Whole{}); });
  }
  const Ahead<2, T> next = {following, in.x.width};
  const float row_scale = reciprocal_rms(row_at<const T>(in.x, row), in.x.width, in.eps, next, 0);
  load_scaled_turns(in, row % in.length, row_scale, turns);
  encode_heads<kVectors, T>(call, row, turns, next, 1, [](int64_t) { return zeros(); });
}

// ---- a scale for each block of tokens, and heads of other widths ----

// Tokens [first, first + count) of a sample, whole blocks: they come from memory for the scales of their rows, and
// again from a near cache, a head at a time.
template <class T>
void encode_blocks(const RmsNormRope8bit &call, int64_t sample, int64_t first, int64_t count, float *memory) {
  const RmsNormRopeInputs &in = call.in;
  const int64_t head_width = in.x.width / in.num_heads, per_scale = call.tokens_per_scale;
  const int64_t num_scales = (count + per_scale - 1) / per_scale, row = sample * in.length + first;
  // Tokens of a sample are equally far apart. Looking each up for each head would cost four divisions of integers.
  const T *rows = row_at<const T>(in.x, row);
  const int64_t stride = in.x.inner_stride;
  float *values = memory, *turns = values + count * head_width;
  const bool is_out_streamed = in.x.count * in.x.width >= kStreamedBytes;
  for (int64_t k = 0; k < count; ++k) {
    const float row_scale =
        call.row_scales ? call.row_scales[row + k] : reciprocal_rms(rows + k * stride, in.x.width, in.eps);
    load_scaled_turns(in, first + k, row_scale, turns + 2 * k * head_width);
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
        const T *x = rows + k * stride + column;
        const Ahead<1, T, 2> next = {x + count * stride, head_width};
        const float *cosines = turns + 2 * k * head_width, *sines = cosines + head_width;
        float *to = values + k * head_width;
        if (!is_out_streamed) ask_to_write(codes + k * head_width, head_width);
        for_each_vector(head_width, [&](int64_t i, auto extent) {
          next.ask(0, i);
          const Floats value =
              turned(x + i, load(weight + i, extent), cosines + i, sines + i, extent) - load(mean + i, extent);
          store(to + i, value, extent);
          sizes = larger(sizes, size_bits(kept(value, extent)));
        });
      }
      scales[block] = scale_for(largest(sizes), limit_of(int8_t{}));
    }
    for (int64_t block = 0; block < num_scales; ++block) {
      const int64_t begin = block * per_scale, end = begin + per_scale < count ? begin + per_scale : count;
      encode_row(codes + begin * head_width, values + begin * head_width, scales[block], (end - begin) * head_width,
                 is_out_streamed);
    }
  }
}

template <class T>
void encode_piece(const RmsNormRope8bit &call, int64_t sample, int64_t first, int64_t count, float *memory) {
  const RmsNormRopeInputs &in = call.in;
  const int64_t head_width = in.x.width / in.num_heads;
  const auto run = head_width == 128 ? encode_token<128 / kLanes, T> : encode_token<64 / kLanes, T>;
  if (call.tokens_per_scale > 1 || !fits_registers(head_width)) {
    return encode_blocks<T>(call, sample, first, count, memory);
  }
  for (int64_t row = sample * in.length + first; count > 0; ++row, --count) run(call, row, memory);
}

void encode_pieces(const RmsNormRope8bit &call, int64_t begin, int64_t end, float *memory) {
  with_dtype(call.in.x.dtype, [&](auto type) {
    const int64_t num_pieces = (call.in.length + call.tokens_per_piece - 1) / call.tokens_per_piece;
    for (int64_t piece = begin; piece < end; ++piece) {
      const int64_t first = piece % num_pieces * call.tokens_per_piece, left = call.in.length - first;
      encode_piece<decltype(type)>(call, piece / num_pieces, first,
                                   left < call.tokens_per_piece ? left : call.tokens_per_piece, memory);
    }
  });
  finish_streaming();
}

}  // namespace

extern const RmsNormRope8bitKernels rms_norm_rope_8bit_kernels = {sum_tokens, encode_pieces};

}  // namespace WK_ISA
}  // namespace wk
