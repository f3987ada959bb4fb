// SPDX-License-Identifier: Apache-2.0
// Codes are made a piece of one head at a time, in tiles: tokens come in the order of v, where scales lie side by side,
// and are turned in registers on their way out. Scales of blocks are found there too, so that v comes from memory once;
// a scale over all tokens, or a mean, takes a pass of its own.
#include "common/cpu/codes.h"
#include "ops/quantize_values/quantize_values_cpu.h"

namespace wk {
namespace WK_ISA {
namespace {

// Rows of a tile that are turned together: 16 channels of as many tokens as a vector has bytes.
typedef uint8_t Block __attribute__((vector_size(WK_VECTOR_BYTES)));
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

// The tile's codes to rows of channels, which leave as whole lines: they are often a power of two apart, so that few of
// them fit the first cache together.
void turn(char *out, int64_t out_stride, const char *tile, int64_t width) {
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
        __builtin_memcpy(out + (channel + r) * out_stride + b * kBlockTokens, &lines[b][r], sizeof(Block));
      }
    }
  }
}

// Calls step(token, i, tokens, extent) for each vector of a row, for 4 tokens at a time: what belongs to the channel is
// then read once for them.
template <int64_t count>
struct Tokens {
  static constexpr int64_t kCount = count;
};
template <class Step>
WK_INLINE void for_each_vector_of_tokens(int64_t count, int64_t width, const Step &step) {
  int64_t token = 0;
  for (; token + 4 <= count; token += 4) {
    for_each_vector(width, [&](int64_t i, auto extent) { step(token, i, Tokens<4>{}, extent); });
  }
  for (; token < count; ++token) {
    for_each_vector(width, [&](int64_t i, auto extent) { step(token, i, Tokens<1>{}, extent); });
  }
}

WK_INLINE Floats lesser(Floats a, Floats b) { return select(b < a, b, a); }
WK_INLINE Floats greater(Floats a, Floats b) { return select(b > a, b, a); }

// Each channel's largest size of x - mean.
template <class T>
void measure_sizes(float *sizes, const T *x, int64_t stride, int64_t count, int64_t width, const float *mean) {
  for_each_vector(width, [&](int64_t i, auto extent) { store(sizes + i, zeros(), extent); });
  for_each_vector_of_tokens(count, width, [&](int64_t token, int64_t i, auto tokens, auto extent) {
    const T *from = x + token * stride + i;
    const Floats average = load(mean + i, extent);
    Words size = (Words)load(sizes + i, extent);
    for (int64_t k = 0; k < tokens.kCount; ++k) {
      size = larger(size, size_bits(load(from + k * stride, extent) - average));
    }
    store(sizes + i, (Floats)size, extent);
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
  for_each_vector_of_tokens(count, width, [&](int64_t token, int64_t i, auto tokens, auto extent) {
    const T *from = x + token * stride + i;
    Floats sum = load(sums + i, extent), low = load(least + i, extent), high = load(most + i, extent);
    for (int64_t k = 0; k < tokens.kCount; ++k) {
      const Floats value = load(from + k * stride, extent);
      sum += value;
      low = lesser(low, value);
      high = greater(high, value);
    }
    store(sums + i, sum, extent);
    store(least + i, low, extent);
    store(most + i, high, extent);
  });
}

// The scale of channels of these largest sizes.
template <class Code>
WK_INLINE Floats scales_for(Words sizes, Code code) {
  const Floats limit = splat(limit_of(code)), floor = limit * splat(0x1p-126f), size = (Floats)sizes;
  return select(size < floor, floor, size) / limit;
}

// The largest size of v - mean: rounding keeps order, so it is that of the least or of the largest value.
template <class Extent>
WK_INLINE Words finish_range(float *mean, const float *parts, int64_t num_parts, int64_t stride, int64_t width,
                             int64_t length, Extent extent) {
  Floats sum = zeros(), least = splat(__builtin_inff()), most = -least;
  for (int64_t p = 0; p < num_parts; ++p) {
    const float *part = parts + p * stride;
    sum += load(part, extent);
    least = lesser(least, load(part + width, extent));
    most = greater(most, load(part + 2 * width, extent));
  }
  const Floats average = sum / splat(static_cast<float>(length));
  store(mean, average, extent);
  return larger(size_bits(least - average), size_bits(most - average));
}

template <class Extent>
WK_INLINE Words finish_sizes(const float *parts, int64_t num_parts, int64_t stride, Extent extent) {
  Words size = {};
  for (int64_t p = 0; p < num_parts; ++p) size = larger(size, (Words)load(parts + p * stride, extent));
  return size;
}

void finish(const QuantizeValues &call, int64_t sample, const float *parts, int64_t num_parts, int64_t stride) {
  const int64_t width = call.v.width, length = call.length;
  float *means = call.mean + sample * width, *scales = call.has_blocks ? nullptr : call.out_scale + sample * width;
  with_codes(call.code_dtype, [&](auto code) {
    for_each_vector(width, [&](int64_t i, auto extent) {
      const Words sizes = call.is_smooth ? finish_range(means + i, parts + i, num_parts, stride, width, length, extent)
                                         : finish_sizes(parts + i, num_parts, stride, extent);
      if (scales) store(scales + i, scales_for(sizes, code), extent);
    });
  });
}

// What one piece of one head reads and writes.
template <class T>
struct Piece {
  const T *x;
  int64_t stride;  // from token to token
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
  const int64_t head = index % call.num_heads, i = index / call.num_heads % call.num_pieces;
  const int64_t sample = index / call.num_heads / call.num_pieces, of_head = sample * call.num_heads + head;
  const int64_t width = call.v.width / call.num_heads, first = i * call.piece_tokens;
  const auto up_to = [&](int64_t end) { return end - first < call.piece_tokens ? end - first : call.piece_tokens; };
  Piece<T> piece;
  piece.x = row_at<const T>(call.v, sample * call.length + first) + head * width;
  piece.stride = call.v.inner_stride;
  piece.count = up_to(call.length);
  piece.width = width;
  piece.mean = call.mean + of_head * width;
  piece.scales = call.out_scale + (call.has_blocks ? of_head * call.num_pieces + i : of_head) * width;
  piece.out = call.out + of_head * width * call.positions + first;
  piece.out_stride = call.positions;
  piece.num_positions = up_to(call.positions);
  return piece;
}

template <class Code, class T>
void write_scales(const Piece<T> &piece, Code code) {
  measure_sizes(piece.scales, piece.x, piece.stride, piece.count, piece.width, piece.mean);
  for_each_vector(piece.width, [&](int64_t i, auto extent) {
    store(piece.scales + i, scales_for((Words)load(piece.scales + i, extent), code), extent);
  });
}

// Codes of a piece's tokens from `first` on to a tile.
template <class Code, class T>
void encode_tile(char *tile, const Piece<T> &piece, int64_t first, const float *inverses, bool is_permuted) {
  const int64_t left = piece.count - first, count = left < kTileTokens ? left : kTileTokens;
  if (count < kTileTokens) __builtin_memset(tile, 0, static_cast<size_t>(tile_bytes(piece.width)));
  const float *mean = piece.mean;
  for_each_vector_of_tokens(count, piece.width, [&](int64_t token, int64_t i, auto tokens, auto extent) {
    const T *from = piece.x + (first + token) * piece.stride + i;
    const Floats average = load(mean + i, extent), inverse = load(inverses + i, extent);
    for (int64_t k = 0; k < tokens.kCount; ++k) {
      const Floats value = (load(from + k * piece.stride, extent) - average) * inverse;
      const int64_t position = is_permuted ? permuted(token + k) : token + k;
      char *to = tile + i / kGroup * kGroupBytes + i % kGroup + place_of(position);
      store_codes(reinterpret_cast<Code *>(to), encode(value, Code{}), extent);
    }
  });
}

// Channels whose scale is not finite get the codes that they must have, whatever encoding them gave.
template <class T>
void clear_strays(const Piece<T> &piece) {
  for (int64_t i = 0; i < piece.width; ++i) {
    const float scale = piece.scales[i];
    if (scale - scale != 0.0f) {
      __builtin_memset(piece.out + i * piece.out_stride, 0, static_cast<size_t>(piece.num_positions));
    }
  }
}

template <class Code, class T>
void encode_piece(const QuantizeValues &call, int64_t index, float *memory) {
  const Piece<T> piece = piece_at<T>(call, index);
  if (call.has_blocks) write_scales(piece, Code{});
  float *inverses = memory;
  char *tile = reinterpret_cast<char *>(memory + padded_width(piece.width));
  Floats strays = zeros();
  for_each_vector(piece.width, [&](int64_t i, auto extent) {
    const Floats scale = load(piece.scales + i, extent);
    store(inverses + i, splat(1.0f) / scale, extent);
    strays += kept(scale - scale, extent);
  });
  for (int64_t first = 0; first < piece.num_positions; first += kTileTokens) {
    encode_tile<Code>(tile, piece, first, inverses, call.is_permuted);
    turn(piece.out + first, piece.out_stride, tile, piece.width);
  }
  if (sum(strays) != 0.0f) clear_strays(piece);
}

void measure(const QuantizeValues &call, int64_t begin, int64_t end, float *part) {
  with_dtype(call.v.dtype, [&](auto type) {
    using T = decltype(type);
    const T *x = row_at<const T>(call.v, begin);
    const int64_t stride = call.v.inner_stride, width = call.v.width;
    if (call.is_smooth) {
      measure_ranges(part, x, stride, end - begin, width);
    } else {
      measure_sizes(part, x, stride, end - begin, width, call.mean);
    }
  });
}

void encode_pieces(const QuantizeValues &call, int64_t begin, int64_t end, float *memory) {
  with_dtype(call.v.dtype, [&](auto type) {
    with_codes(call.code_dtype, [&](auto code) {
      for (int64_t index = begin; index < end; ++index) {
        encode_piece<decltype(code), decltype(type)>(call, index, memory);
      }
    });
  });
}

}  // namespace

extern const QuantizeValuesKernels quantize_values_kernels = {measure, finish, encode_pieces};

}  // namespace WK_ISA
}  // namespace wk
