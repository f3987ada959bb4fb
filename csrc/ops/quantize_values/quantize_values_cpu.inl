// SPDX-License-Identifier: Apache-2.0
// v comes from memory twice: for each channel's scale, and for the codes. These are made a tile of tokens at a time in
// the order of v, where scales lie side by side, and turned in registers 16 x 16 on their way out.
#include "common/cpu/codes.h"
#include "ops/quantize_values/quantize_values_cpu.h"

namespace wk {
namespace WK_ISA {
namespace {

typedef uint8_t Block __attribute__((vector_size(16)));
constexpr int kBlock = 16;

#if defined(__clang__)
#define WK_SHUFFLE(a, b, ...) __builtin_shufflevector(a, b, __VA_ARGS__)
#else
#define WK_SHUFFLE(a, b, ...) __builtin_shuffle(a, b, Block{__VA_ARGS__})
#endif

// Rows r and r + 8 interleaved become rows 2r and 2r + 1. This rotates the eight bits of (row, column) by one place, so
// that four times it is the transpose.
WK_INLINE void interleave(Block *to, const Block *from) {
#pragma GCC unroll 8
  for (int r = 0; r < kBlock / 2; ++r) {
    const Block a = from[r], b = from[r + kBlock / 2];
    to[2 * r] = WK_SHUFFLE(a, b, 0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23);
    to[2 * r + 1] = WK_SHUFFLE(a, b, 8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31);
  }
}

WK_INLINE Floats lesser(Floats a, Floats b) { return select(b < a, b, a); }
WK_INLINE Floats greater(Floats a, Floats b) { return select(b > a, b, a); }

template <class T>
void measure_sizes(const Rows &v, int64_t begin, int64_t end, float *sizes) {
  for_each_vector(v.width, [&](int64_t i, auto extent) { store(sizes + i, zeros(), extent); });
  for (int64_t token = begin; token < end; ++token) {
    const T *x = row_at<const T>(v, token);
    for_each_vector(v.width, [&](int64_t i, auto extent) {
      const Words size = size_bits(load(x + i, extent));
      store(sizes + i, (Floats)larger((Words)load(sizes + i, extent), size), extent);
    });
  }
}

// A NaN is in the sum only.
template <class T>
void measure_ranges(const Rows &v, int64_t begin, int64_t end, float *sums) {
  float *least = sums + v.width, *most = least + v.width;
  for_each_vector(v.width, [&](int64_t i, auto extent) {
    store(sums + i, zeros(), extent);
    store(least + i, splat(__builtin_inff()), extent);
    store(most + i, splat(-__builtin_inff()), extent);
  });
  for (int64_t token = begin; token < end; ++token) {
    const T *x = row_at<const T>(v, token);
    for_each_vector(v.width, [&](int64_t i, auto extent) {
      const Floats value = load(x + i, extent);
      store(sums + i, load(sums + i, extent) + value, extent);
      store(least + i, lesser(load(least + i, extent), value), extent);
      store(most + i, greater(load(most + i, extent), value), extent);
    });
  }
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
WK_INLINE Words finish_sizes(float *mean, const float *parts, int64_t num_parts, int64_t stride, Extent extent) {
  Words size = {};
  for (int64_t p = 0; p < num_parts; ++p) size = larger(size, (Words)load(parts + p * stride, extent));
  store(mean, zeros(), extent);
  return size;
}

void finish(const QuantizeValues &call, int64_t sample, const float *parts, int64_t num_parts, int64_t stride) {
  const int64_t width = call.v.width, start = sample * width, length = call.length;
  float *scales = call.out_scale + start, *means = call.mean + start, *inverses = call.inverse + start;
  const bool is_range = call.is_smooth && num_parts > 0;
  with_codes(call.code_dtype, [&](auto code) {
    const Floats limit = splat(limit_of(code)), floor = limit * splat(0x1p-126f);
    for_each_vector(width, [&](int64_t i, auto extent) {
      const Words bits = is_range ? finish_range(means + i, parts + i, num_parts, stride, width, length, extent)
                                  : finish_sizes(means + i, parts + i, num_parts, stride, extent);
      const Floats size = (Floats)bits;
      const Floats scale = select(size < floor, floor, size) / limit;
      store(scales + i, scale, extent);
      store(inverses + i, splat(1.0f) / scale, extent);
    });
  });
}

// Where a token of 16 stands when they are permuted.
WK_INLINE int64_t permuted(int64_t token) {
  return (token & ~int64_t{15}) | (token & 6) << 1 | (token & 8) >> 2 | (token & 1);
}

// Codes of one token's channels.
template <class Code, class T>
void encode_token(Code *codes, const T *x, const float *mean, const float *inverse, int64_t width) {
  for_each_vector(width, [&](int64_t i, auto extent) {
    const Floats value = (load(x + i, extent) - load(mean + i, extent)) * load(inverse + i, extent);
    store_codes(codes + i, encode(select(value == value, value, zeros()), Code{}), extent);
  });
}

// Tile [kTileTokens, width] to rows of channels, which leave as whole lines: they are often a power of two apart, so
// that few of them fit the first cache together.
void turn(char *out, int64_t out_stride, const char *tile, int64_t stride, int64_t width) {
  char lines[kBlock][kTileTokens];
  for (int64_t channel = 0; channel < width; channel += kBlock) {
    const int64_t count = width - channel < kBlock ? width - channel : kBlock;
    for (int64_t token = 0; token < kTileTokens; token += kBlock) {
      Block rows[kBlock], turned[kBlock];
#pragma GCC unroll 16
      for (int64_t r = 0; r < kBlock; ++r) {
        __builtin_memcpy(&rows[r], tile + (token + r) * stride + channel, sizeof(Block));
      }
      interleave(turned, rows);
      interleave(rows, turned);
      interleave(turned, rows);
      interleave(rows, turned);
#pragma GCC unroll 16
      for (int64_t r = 0; r < kBlock; ++r) __builtin_memcpy(lines[r] + token, &rows[r], sizeof(Block));
    }
    for (int64_t r = 0; r < count; ++r) __builtin_memcpy(out + (channel + r) * out_stride, lines[r], kTileTokens);
  }
}

template <class Code, class T>
void encode_tile(const QuantizeValues &call, int64_t sample, int64_t first, char *memory) {
  const int64_t width = call.v.width, stride = tile_stride(width), start = sample * width;
  for (int64_t k = 0; k < kTileTokens; ++k) {
    Code *codes = reinterpret_cast<Code *>(memory + (call.is_permuted ? permuted(k) : k) * stride);
    if (first + k < call.length) {
      encode_token(codes, row_at<const T>(call.v, sample * call.length + first + k), call.mean + start,
                   call.inverse + start, width);
    } else {
      __builtin_memset(codes, 0, static_cast<size_t>(width));
    }
  }
  turn(call.out + start * call.positions + first, call.positions, memory, stride, width);
}

void measure(const QuantizeValues &call, int64_t begin, int64_t end, float *part) {
  with_dtype(call.v.dtype, [&](auto type) {
    const auto run = call.is_smooth ? measure_ranges<decltype(type)> : measure_sizes<decltype(type)>;
    run(call.v, begin, end, part);
  });
}

void encode(const QuantizeValues &call, int64_t begin, int64_t end, char *memory) {
  const int64_t num_tiles = call.positions / kTileTokens;
  with_dtype(call.v.dtype, [&](auto type) {
    with_codes(call.code_dtype, [&](auto code) {
      for (int64_t tile = begin; tile < end; ++tile) {
        encode_tile<decltype(code), decltype(type)>(call, tile / num_tiles, tile % num_tiles * kTileTokens, memory);
      }
    });
  });
}

}  // namespace

extern const QuantizeValuesKernels quantize_values_kernels = {measure, finish, encode};

}  // namespace WK_ISA
}  // namespace wk
