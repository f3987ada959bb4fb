// SPDX-License-Identifier: Apache-2.0
// Codes are made a piece of one head at a time: a strip of channels by a tile of tokens in the order of v, where scales
// lie side by side, turned in registers on their way out. Meanwhile the next piece comes to the second cache. Scales of
// blocks of tokens are found there too, so that v comes from memory once; a scale over all tokens, and a mean, take a
// pass of their own before.
#include "common/cpu/codes.h"
#include "common/cpu/stream.h"
#include "ops/quantize_values/quantize_values_cpu.h"

namespace wk {
namespace WK_ISA {
namespace {

// ---- turning ----

// 16 channels of as many tokens as a vector has bytes are turned together.
constexpr int64_t kBlockTokens = WK_VECTOR_BYTES;
constexpr int64_t kBlocksOfLine = kTileTokens / kBlockTokens;
constexpr int64_t kGroupBytes = kGroup * kTileTokens;

// The lower and the upper halves of each 16 bytes of a and b, interleaved.
#if WK_X86_INTRINSICS && defined(__AVX512F__)
WK_INLINE Block zip_low(Block a, Block b) { return (Block)_mm512_maskz_unpacklo_epi8(~0ull, (__m512i)a, (__m512i)b); }
WK_INLINE Block zip_high(Block a, Block b) { return (Block)_mm512_maskz_unpackhi_epi8(~0ull, (__m512i)a, (__m512i)b); }
#elif WK_X86_INTRINSICS && defined(__AVX2__)
WK_INLINE Block zip_low(Block a, Block b) { return (Block)_mm256_unpacklo_epi8((__m256i)a, (__m256i)b); }
WK_INLINE Block zip_high(Block a, Block b) { return (Block)_mm256_unpackhi_epi8((__m256i)a, (__m256i)b); }
#elif defined(__clang__)
WK_INLINE Block zip_low(Block a, Block b) {
  return __builtin_shufflevector(a, b, 0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23);
}
WK_INLINE Block zip_high(Block a, Block b) {
  return __builtin_shufflevector(a, b, 8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31);
}
#else
WK_INLINE Block zip_low(Block a, Block b) {
  return __builtin_shuffle(a, b, Block{0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23});
}
WK_INLINE Block zip_high(Block a, Block b) {
  return __builtin_shuffle(a, b, Block{8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31});
}
#endif

// Rows r and r + 8 interleaved become rows 2r and 2r + 1. This rotates the eight bits of (row, column) of each 16 x 16
// by one place, so that four times it is the transpose.
WK_INLINE void interleave(Block *to, const Block *from) {
#pragma GCC unroll 8
  for (int64_t r = 0; r < kGroup / 2; ++r) {
    to[2 * r] = zip_low(from[r], from[r + kGroup / 2]);
    to[2 * r + 1] = zip_high(from[r], from[r + kGroup / 2]);
  }
}

// Where the codes of a position stand in a group of a tile: every 16th in one row of a block, side by side.
WK_INLINE int64_t place_of(int64_t position) {
  return position / kBlockTokens * (kGroup * WK_VECTOR_BYTES) + position % 16 * WK_VECTOR_BYTES +
         position % kBlockTokens / 16 * 16;
}

// Where a token of 16 stands when they are permuted.
WK_INLINE int64_t permuted(int64_t token) {
  return (token & ~int64_t{15}) | (token & 6) << 1 | (token & 8) >> 2 | (token & 1);
}

// A strip's codes to rows of channels, which leave as whole lines.
void turn(char *out, int64_t out_stride, const char *tile, int64_t width, bool is_aligned) {
  for (int64_t channel = 0; channel < width; channel += kGroup) {
    const int64_t count = width - channel < kGroup ? width - channel : kGroup;
    Block lines[kBlocksOfLine][kGroup];
    for (int64_t b = 0; b < kBlocksOfLine; ++b) {
      Block rows[kGroup], turned[kGroup];
      __builtin_memcpy(rows, tile + channel * kTileTokens + b * sizeof rows, sizeof rows);
      interleave(turned, rows);
      interleave(rows, turned);
      interleave(turned, rows);
      interleave(lines[b], turned);
    }
    for (int64_t r = 0; r < count; ++r) {
      for (int64_t b = 0; b < kBlocksOfLine; ++b) {
        char *to = out + (channel + r) * out_stride + b * kBlockTokens;
        if (is_aligned) {
          stream(to, lines[b][r]);
        } else {
          __builtin_memcpy(to, &lines[b][r], sizeof(Block));
        }
      }
    }
  }
}

// ---- measuring ----

// Calls step(x, i, num_tokens, extent) for each vector of a row and eight tokens at a time, so that what is gathered is
// read and written once for them. Meanwhile the next eight come (8192 x 1536 bf16, a mean, two cores: 1.8 ms without,
// 1.5 with).
template <class T, class Step>
WK_INLINE void for_each_vector_of_tokens(const T *x, int64_t stride, int64_t count, int64_t width, const Step &step) {
  constexpr int64_t kTokens = 8;
  int64_t token = 0;
  for (; token + kTokens <= count; token += kTokens) {
    for_each_vector(width, [&](int64_t i, auto extent) {
      const T *from = x + token * stride + i;
      if (i % kLineOf<T> == 0) {
        for (int64_t k = kTokens; k < 2 * kTokens; ++k) fetch(from + k * stride);
      }
      step(from, i, kTokens, extent);
    });
  }
  if (token == count) return;
  for_each_vector(width, [&](int64_t i, auto extent) { step(x + token * stride + i, i, count - token, extent); });
}

template <class T>
void measure_sizes(float *sizes, const T *x, int64_t stride, int64_t count, int64_t width) {
  for_each_vector(width, [&](int64_t i, auto extent) { store(sizes + i, zeros(), extent); });
  for_each_vector_of_tokens(x, stride, count, width, [&](const T *from, int64_t i, int64_t num_tokens, auto extent) {
    auto size = load_size(from, extent);
    for (int64_t k = 1; k < num_tokens; ++k) size = larger_size(size, load_size(from + k * stride, extent));
    const Words before = (Words)load(sizes + i, extent);
    store(sizes + i, (Floats)larger(before, widen_size(size, T{})), extent);
  });
}

// Each channel's sum, least and largest value. A NaN is in the sum only.
template <class T>
void measure_ranges(float *sums, const T *x, int64_t stride, int64_t count, int64_t width) {
  float *least = sums + width, *most = least + width;
  for_each_vector(width, [&](int64_t i, auto extent) {
    store(sums + i, zeros(), extent);
    store(least + i, splat(__builtin_inff()), extent);
    store(most + i, splat(-__builtin_inff()), extent);
  });
  for_each_vector_of_tokens(x, stride, count, width, [&](const T *from, int64_t i, int64_t num_tokens, auto extent) {
    Floats sum = load(sums + i, extent), low = load(least + i, extent), high = load(most + i, extent);
    for (int64_t k = 0; k < num_tokens; ++k) {
      const Floats value = load(from + k * stride, extent);
      sum += value;
      low = at_most(low, value);
      high = at_least(high, value);
    }
    store(sums + i, sum, extent);
    store(least + i, low, extent);
    store(most + i, high, extent);
  });
}

void measure(const QuantizeValues &call, int64_t begin, int64_t end, float *part) {
  with_dtype(call.v.dtype, [&](auto type) {
    using T = decltype(type);
    const auto run = call.is_smooth ? measure_ranges<T> : measure_sizes<T>;
    run(part, row_at<const T>(call.v, begin), call.v.inner_stride, end - begin, call.v.width);
  });
}

// The scale of channels of these largest sizes.
template <class Code>
WK_INLINE Floats scales_for(Words sizes, Code code) {
  const Floats limit = splat(limit_of(code)), floor = limit * splat(0x1p-126f), size = (Floats)sizes;
  return select(size < floor, floor, size) / limit;
}

template <class Extent>
WK_INLINE Words join_sizes(const float *part, int64_t count, int64_t stride, Extent extent) {
  Words size = {};
  for (int64_t p = 0; p < count; ++p) size = larger(size, (Words)load(part + p * stride, extent));
  return size;
}

// The largest size of v - mean: rounding keeps order, so it is that of the least or of the largest value.
template <class Extent>
WK_INLINE Words join_ranges(const float *part, int64_t count, int64_t stride, int64_t width, Floats mean,
                            Extent extent) {
  Floats least = splat(__builtin_inff()), most = -least;
  for (int64_t p = 0; p < count; ++p) {
    least = at_most(least, load(part + p * stride + width, extent));
    most = at_least(most, load(part + p * stride + 2 * width, extent));
  }
  return larger(size_bits(least - mean), size_bits(most - mean));
}

void finish(const QuantizeValues &call, int64_t index, const ValueParts &parts) {
  const int64_t head_width = call.v.width / call.num_heads, stride = parts.stride;
  float *means = call.mean + index * head_width, *scales = call.out_scale + index * call.num_scales * head_width;
  const float *first = parts.data + index % call.num_heads * head_width;
  const auto finish_vector = [&](int64_t i, auto extent, auto code) {
    Floats mean = zeros();
    if (call.is_smooth) {
      for (int64_t p = 0; p < parts.count; ++p) mean += load(first + p * stride + i, extent);
      mean = mean / splat(static_cast<float>(call.length));
      store(means + i, mean, extent);
    }
    for (int64_t k = 0; k < call.num_scales; ++k) {
      const int64_t left = parts.count - k * parts.per_scale, count = left < parts.per_scale ? left : parts.per_scale;
      const float *part = first + k * parts.per_scale * stride + i;
      const Words sizes = call.is_smooth ? join_ranges(part, count, stride, call.v.width, mean, extent)
                                         : join_sizes(part, count, stride, extent);
      store(scales + k * head_width + i, scales_for(sizes, code), extent);
    }
  };
  with_codes(call.code_dtype, [&](auto code) {
    for_each_vector(head_width, [&](int64_t i, auto extent) { finish_vector(i, extent, code); });
  });
}

// ---- encoding ----

// What one piece of one head reads and writes.
template <class T>
struct Piece {
  const T *x;
  int64_t stride;  // from token to token
  int64_t ahead;   // to the piece that comes next
  int64_t count;   // of tokens
  int64_t width;   // channels
  const float *mean;
  float *scales;
  char *out;
  int64_t out_stride;  // from channel to channel
  int64_t num_positions;
};

template <class T>
Piece<T> piece_at(const QuantizeValues &call, int64_t index) {
  const int64_t head = index % call.num_heads, first = index / call.num_heads % call.num_pieces * call.piece_tokens;
  const int64_t sample = index / call.num_heads / call.num_pieces, of_head = sample * call.num_heads + head;
  const int64_t width = call.v.width / call.num_heads;
  const auto up_to = [&](int64_t end) { return end - first < call.piece_tokens ? end - first : call.piece_tokens; };
  Piece<T> piece;
  piece.x = row_at<const T>(call.v, sample * call.length + first) + head * width;
  piece.stride = call.v.inner_stride;
  piece.count = up_to(call.length);
  piece.ahead = head + 1 < call.num_heads ? width : piece.count * piece.stride - head * width;
  piece.width = width;
  piece.mean = call.mean + of_head * width;
  piece.scales = call.out_scale + (of_head * call.num_scales + first / call.tokens_per_scale) * width;
  piece.out = call.out + of_head * width * call.positions + first;
  piece.out_stride = call.positions;
  piece.num_positions = up_to(call.positions);
  return piece;
}

// Of a piece, the kStrip channels from `channel` on.
template <class T>
Piece<T> strip_of(Piece<T> piece, int64_t channel) {
  const int64_t left = piece.width - channel;
  piece.width = left < kStrip ? left : kStrip;
  piece.x += channel;
  piece.mean += channel;
  piece.scales += channel;
  piece.out += channel * piece.out_stride;
  return piece;
}

// Vectors side by side that are worked on together: what belongs to their channels stays in registers over tokens.
template <int64_t count, class ExtentType>
struct Vectors {
  static constexpr int64_t kCount = count;
  ExtentType extent;
};

// Calls step(i, vectors) for four vectors at a time, then for each that is left.
template <class Step>
WK_INLINE void for_each_four_vectors(int64_t width, const Step &step) {
  int64_t i = 0;
  for (; i + 4 * kLanes <= width; i += 4 * kLanes) step(i, Vectors<4, Whole>{});
  for_each_vector(width - i, [&](int64_t k, auto extent) { step(i + k, Vectors<1, decltype(extent)>{extent}); });
}

template <class Code, class T>
void find_scales(const Piece<T> &strip, Code code) {
  for_each_four_vectors(strip.width, [&](int64_t i, auto vectors) {
    constexpr int64_t kCount = decltype(vectors)::kCount;
    const T *from = strip.x + i;
    decltype(load_size(from, vectors.extent)) sizes[kCount] = {};
    for (int64_t token = 0; token < strip.count; ++token, from += strip.stride) {
      for (int64_t j = 0; j < kCount; ++j) {
        sizes[j] = larger_size(sizes[j], load_size(from + j * kLanes, vectors.extent));
      }
    }
    for (int64_t j = 0; j < kCount; ++j) {
      store(strip.scales + i + j * kLanes, scales_for(widen_size(sizes[j], T{}), code), vectors.extent);
    }
  });
}

// Codes of a strip's tokens from `first` on to a tile, each token's to its place. Meanwhile those of the next piece
// come (8192 x 1536 bf16, one scale, two cores: 2.6 ms without, 1.7 with).
template <class Code, class T>
void encode_tile(char *tile, const Piece<T> &strip, int64_t first, const int64_t *places) {
  const int64_t left = strip.count - first, count = left < kTileTokens ? left : kTileTokens;
  if (count < kTileTokens) __builtin_memset(tile, 0, kStrip * kTileTokens);
  for_each_four_vectors(strip.width, [&](int64_t i, auto vectors) {
    constexpr int64_t kCount = decltype(vectors)::kCount;
    Floats mean[kCount], inverse[kCount];
    for (int64_t j = 0; j < kCount; ++j) {
      mean[j] = load(strip.mean + i + j * kLanes, vectors.extent);
      inverse[j] = splat(1.0f) / load(strip.scales + i + j * kLanes, vectors.extent);
    }
    const T *from = strip.x + first * strip.stride + i;
    char *to = tile + i / kGroup * kGroupBytes + i % kGroup;
    for (int64_t token = 0; token < count; ++token, from += strip.stride) {
      for (int64_t j = 0; j < kCount; ++j) {
        const Floats value = (load(from + j * kLanes, vectors.extent) - mean[j]) * inverse[j];
        char *at = to + places[token] + j * kLanes / kGroup * kGroupBytes + j * kLanes % kGroup;
        store_codes(reinterpret_cast<Code *>(at), encode(value, Code{}), vectors.extent);
      }
      for (int64_t j = 0; j < kCount * kLanes; j += kLineOf<T>) fetch(from + strip.ahead + j);
    }
  });
}

// Where a scale is not finite, codes are 0, whatever was made of it.
template <class T>
void clear_strays(const Piece<T> &strip) {
  Floats strays = zeros();
  for_each_vector(strip.width, [&](int64_t i, auto extent) {
    const Floats scale = load(strip.scales + i, extent);
    strays += kept(scale - scale, extent);
  });
  if (sum(strays) == 0.0f) return;
  for (int64_t i = 0; i < strip.width; ++i) {
    const float scale = strip.scales[i];
    if (scale - scale == 0.0f) continue;
    __builtin_memset(strip.out + i * strip.out_stride, 0, static_cast<size_t>(strip.num_positions));
  }
}

void encode_pieces(const QuantizeValues &call, int64_t begin, int64_t end) {
  alignas(64) char tile[kStrip * kTileTokens];
  int64_t places[kTileTokens];
  for (int64_t k = 0; k < kTileTokens; ++k) places[k] = place_of(call.is_permuted ? permuted(k) : k);
  const auto encode_strip = [&](const auto &strip, auto code) {
    if (call.finds_scales) find_scales(strip, code);
    for (int64_t first = 0; first < strip.num_positions; first += kTileTokens) {
      encode_tile<decltype(code)>(tile, strip, first, places);
      turn(strip.out + first, strip.out_stride, tile, strip.width, call.is_aligned);
    }
    clear_strays(strip);
  };
  with_dtype(call.v.dtype, [&](auto type) {
    with_codes(call.code_dtype, [&](auto code) {
      for (int64_t index = begin; index < end; ++index) {
        const auto piece = piece_at<decltype(type)>(call, index);
        for (int64_t i = 0; i < piece.width; i += kStrip) encode_strip(strip_of(piece, i), code);
      }
    });
  });
  finish_streaming();
}

}  // namespace

extern const QuantizeValuesKernels quantize_values_kernels = {measure, finish, encode_pieces};

}  // namespace WK_ISA
}  // namespace wk
