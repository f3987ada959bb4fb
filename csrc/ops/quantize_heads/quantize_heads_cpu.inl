// SPDX-License-Identifier: Apache-2.0
// A piece of one head comes from memory for the scales of its blocks, and from a near cache for their codes; meanwhile
// the next head's comes to the second cache.
#include "common/cpu/head.h"
#include "ops/quantize_heads/quantize_heads_cpu.h"

namespace wk {
namespace WK_ISA {
namespace {

template <class T>
WK_INLINE const T *head_at(const QuantizeHeads &call, int64_t sample, int64_t token, int64_t head) {
  const int64_t at = sample * call.sample_stride + token * call.token_stride + head * call.head_stride;
  return reinterpret_cast<const T *>(call.x) + at;
}

// Eight tokens at a time, so that sums are read and written once for them, while what is `ahead` comes.
template <class T>
void add_head(float *sums, const T *x, int64_t stride, int64_t count, int64_t width, int64_t ahead) {
  constexpr int64_t kTokens = 8;
  int64_t token = 0;
  for (; token + kTokens <= count; token += kTokens) {
    for_each_vector(width, [&](int64_t i, auto extent) {
      Floats total = load(sums + i, extent);
      for (int64_t k = 0; k < kTokens; ++k) {
        const T *from = x + (token + k) * stride + i;
        total += load(from, extent);
        if (i % kLineOf<T> == 0) fetch(from + ahead);
      }
      store(sums + i, total, extent);
    });
  }
  for (; token < count; ++token) {
    for_each_vector(width, [&](int64_t i, auto extent) {
      store(sums + i, load(sums + i, extent) + load(x + token * stride + i, extent), extent);
    });
  }
}

void sum_tokens(const QuantizeHeads &call, int64_t begin, int64_t end, float *sums) {
  constexpr int64_t kTokens = 8;
  const int64_t sample = begin / (call.length > 0 ? call.length : 1), start = sample * call.length;
  with_dtype(call.dtype, [&](auto type) {
    for (int64_t token = begin; token < end; token += kTokens) {
      const int64_t count = end - token < kTokens ? end - token : kTokens;
      for (int64_t head = 0; head < call.num_heads; ++head) {
        const auto *x = head_at<decltype(type)>(call, sample, token - start, head);
        add_head(sums + head * call.head_width, x, call.token_stride, count, call.head_width,
                 count * call.token_stride);
      }
    }
  });
}

// ---- a scale for each token ----

// All heads of a token, while the next token comes.
template <int64_t kVectors, class T>
void encode_token(const QuantizeHeads &call, int64_t sample, int64_t token) {
  constexpr int64_t kWidth = kVectors * kLanes;
  const T *x = head_at<T>(call, sample, token, 0);
  const int64_t first = sample * call.num_heads * call.length + token;
  const bool is_out_streamed = call.length * call.num_heads * kWidth >= kStreamedBytes;  // of one sample
  const auto run = [&](const auto &mean) {
    const auto read = [&](int64_t head) {
      const T *from = x + head * call.head_stride;
      return read_head<kVectors>([&](int64_t i) {
        if (i % kLineOf<T> == 0) fetch(from + call.token_stride + i);
        return load(from + i, Whole{}) - mean(head * kWidth + i);
      });
    };
    for_each_head(call.num_heads, read, [&](int64_t head, const auto &values) {
      const int64_t at = first + head * call.length;
      encode_head(call.out + at * kWidth, call.out_scale + at, values, is_out_streamed);
    });
  };
  if (!call.mean) return run([](int64_t) { return zeros(); });
  const float *means = call.mean + sample * call.num_heads * kWidth;
  run([=](int64_t i) { return load(means + i, Whole{}); });
}

void encode_tokens(const QuantizeHeads &call, int64_t begin, int64_t end) {
  with_dtype(call.dtype, [&](auto type) {
    using T = decltype(type);
    const auto encode = call.head_width == 128 ? encode_token<128 / kLanes, T> : encode_token<64 / kLanes, T>;
    for (int64_t row = begin; row < end; ++row) encode(call, row / call.length, row % call.length);
  });
  finish_streaming();
}

// ---- a scale for each block of tokens ----

template <class T>
float find_scale(const T *x, int64_t stride, int64_t count, int64_t width, const float *mean) {
  Words sizes = {};
  if (mean) {
    for (int64_t token = 0; token < count; ++token, x += stride) {
      for_each_vector(width, [&](int64_t i, auto extent) {
        sizes = larger(sizes, size_bits(load(x + i, extent) - load(mean + i, extent)));
      });
    }
  } else {
    auto as_read = load_size(x, Part{0});
    for (int64_t token = 0; token < count; ++token, x += stride) {
      for_each_vector(width, [&](int64_t i, auto extent) { as_read = larger_size(as_read, load_size(x + i, extent)); });
    }
    sizes = widen_size(as_read, T{});
  }
  return scale_for(largest(sizes), limit_of(int8_t{}));
}

// Its codes, while the piece that is `ahead` comes.
template <class T>
void encode_block(int8_t *out, const T *x, int64_t stride, int64_t count, int64_t width, float scale, const float *mean,
                  int64_t ahead, bool is_out_streamed) {
  if (scale - scale != 0.0f) {
    __builtin_memset(out, 0, static_cast<size_t>(count * width));
    return;
  }
  const Floats inverse = splat(1.0f / scale);
  for (int64_t token = 0; token < count; ++token, x += stride, out += width) {
    const auto read = [&](int64_t i, auto extent) {
      if (i % kLineOf<T> == 0) fetch(x + ahead + i);
      return load(x + i, extent);
    };
    if (mean) {
      encode_vectors(out, width, is_out_streamed,
                     [&](int64_t i, auto extent) { return (read(i, extent) - load(mean + i, extent)) * inverse; });
    } else {
      encode_vectors(out, width, is_out_streamed, [&](int64_t i, auto extent) { return read(i, extent) * inverse; });
    }
  }
}

template <class T>
void encode_piece(const QuantizeHeads &call, int64_t index) {
  const int64_t head = index % call.num_heads, first = index / call.num_heads % call.num_pieces * call.piece_blocks;
  const int64_t sample = index / call.num_heads / call.num_pieces, of_head = sample * call.num_heads + head;
  const int64_t width = call.head_width, per = call.tokens_per_scale, stride = call.token_stride;
  const int64_t left = call.num_blocks - first, num_blocks = left < call.piece_blocks ? left : call.piece_blocks;
  const int64_t start = first * per,
                end = first + num_blocks == call.num_blocks ? call.length : start + num_blocks * per;
  const int64_t ahead = head + 1 < call.num_heads ? call.head_stride : (end - start) * stride - head * call.head_stride;
  const float *mean = call.mean ? call.mean + of_head * width : nullptr;
  float *scale = call.out_scale + of_head * call.num_blocks + first;
  int8_t *out = call.out + (of_head * call.length + start) * width;
  const bool is_out_streamed = call.length * call.num_heads * width >= kStreamedBytes;  // of one sample
  for (int64_t token = start; token < end; token += per, ++scale, out += per * width) {
    const T *x = head_at<T>(call, sample, token, head);
    const int64_t count = end - token < per ? end - token : per;
    *scale = find_scale(x, stride, count, width, mean);
    encode_block(out, x, stride, count, width, *scale, mean, ahead, is_out_streamed);
  }
}

void encode_pieces(const QuantizeHeads &call, int64_t begin, int64_t end) {
  with_dtype(call.dtype, [&](auto type) {
    for (int64_t index = begin; index < end; ++index) encode_piece<decltype(type)>(call, index);
  });
  finish_streaming();
}

}  // namespace

extern const QuantizeHeadsKernels quantize_heads_kernels = {sum_tokens, encode_tokens, encode_pieces};

}  // namespace WK_ISA
}  // namespace wk
