// SPDX-License-Identifier: Apache-2.0
// Tiles of rows by groups of 16 columns: four bytes of a row are spread over a vector and meet the four bytes of each
// column, as the packed weight has them side by side. The sums of a few hundred columns wait in the cache until their
// rows are finished from there.
//
// AVX-512 VNNI multiplies unsigned by signed bytes: x goes in with 128 added, in the copy of its rows that is made for
// each block, and 128 times the column's sum comes off afterwards. Narrower sets widen both to 16 bits, where pairs of
// products are exact.
#include "common/cpu/codes.h"
#include "common/cpu/exp.h"
#include "ops/linear_8bit/linear_8bit_cpu.h"

namespace wk {
namespace WK_ISA {
namespace {

// How a group of 16 columns is summed: kParts vectors, each with the sums of 16 / kParts columns.
#if WK_X86_INTRINSICS && defined(__AVX512VNNI__)
constexpr int kParts = 1, kRowsAtOnce = 8, kGroupsAtOnce = 3;
constexpr int32_t kShift = 128;
typedef uint8_t Left;
typedef __m512i Sums;
WK_INLINE Sums no_sums() { return _mm512_setzero_si512(); }
WK_INLINE Sums load_part(const int8_t *from) { return _mm512_loadu_si512(from); }
WK_INLINE Sums spread_quad(const Left *from) {
  int32_t quad;
  __builtin_memcpy(&quad, from, sizeof quad);
  return _mm512_set1_epi32(quad);
}
WK_INLINE Sums add_products(Sums sums, Sums row, Sums part) { return _mm512_dpbusd_epi32(sums, row, part); }
WK_INLINE void store_group(int32_t *to, const Sums (&parts)[kParts]) { _mm512_storeu_si512(to, parts[0]); }
#elif WK_X86_INTRINSICS && defined(__AVX2__)
constexpr int kParts = 4, kRowsAtOnce = 2, kGroupsAtOnce = 1;
constexpr int32_t kShift = 0;
typedef int8_t Left;
typedef __m256i Sums;  // two neighbouring sums for each column
WK_INLINE Sums no_sums() { return _mm256_setzero_si256(); }
WK_INLINE Sums load_part(const int8_t *from) {
  return _mm256_cvtepi8_epi16(_mm_loadu_si128(reinterpret_cast<const __m128i *>(from)));
}
WK_INLINE Sums spread_quad(const Left *from) {
  int32_t quad;
  __builtin_memcpy(&quad, from, sizeof quad);
  return _mm256_cvtepi8_epi16(_mm_set1_epi32(quad));
}
WK_INLINE Sums add_products(Sums sums, Sums row, Sums part) {
  return _mm256_add_epi32(sums, _mm256_madd_epi16(row, part));
}
WK_INLINE void store_group(int32_t *to, const Sums (&parts)[kParts]) {
  for (int i = 0; i < kParts; i += 2) {
    // hadd works in halves of the vector, so columns come out as 0 1 4 5 2 3 6 7.
    const __m256i pairs = _mm256_permute4x64_epi64(_mm256_hadd_epi32(parts[i], parts[i + 1]), 0xd8);
    _mm256_storeu_si256(reinterpret_cast<__m256i *>(to + 4 * i), pairs);
  }
}
#elif WK_X86_INTRINSICS
constexpr int kParts = 8, kRowsAtOnce = 1, kGroupsAtOnce = 1;
constexpr int32_t kShift = 0;
typedef int8_t Left;
typedef __m128i Sums;  // two neighbouring sums for each column
WK_INLINE Sums no_sums() { return _mm_setzero_si128(); }
WK_INLINE Sums widen_bytes(__m128i bytes) { return _mm_srai_epi16(_mm_unpacklo_epi8(bytes, bytes), 8); }
WK_INLINE Sums load_part(const int8_t *from) {
  return widen_bytes(_mm_loadl_epi64(reinterpret_cast<const __m128i *>(from)));
}
WK_INLINE Sums spread_quad(const Left *from) {
  int32_t quad;
  __builtin_memcpy(&quad, from, sizeof quad);
  return widen_bytes(_mm_set1_epi32(quad));
}
WK_INLINE Sums add_products(Sums sums, Sums row, Sums part) { return _mm_add_epi32(sums, _mm_madd_epi16(row, part)); }
WK_INLINE void store_group(int32_t *to, const Sums (&parts)[kParts]) {
  for (int i = 0; i < kParts; ++i) {
    int32_t lanes[4];
    __builtin_memcpy(lanes, &parts[i], sizeof lanes);
    to[2 * i] = lanes[0] + lanes[1];
    to[2 * i + 1] = lanes[2] + lanes[3];
  }
}
#else
constexpr int kParts = 4, kRowsAtOnce = 1, kGroupsAtOnce = 1;
constexpr int32_t kShift = 0;
typedef int8_t Left;
typedef int32_t Sums __attribute__((vector_size(64)));  // four neighbouring sums for each column
typedef int8_t Bytes16 __attribute__((vector_size(16)));
WK_INLINE Sums no_sums() { return Sums{}; }
WK_INLINE Sums load_part(const int8_t *from) {
  Bytes16 bytes;
  __builtin_memcpy(&bytes, from, sizeof bytes);
  return __builtin_convertvector(bytes, Sums);
}
WK_INLINE Sums spread_quad(const Left *from) {
  Sums row;
  for (int i = 0; i < 16; ++i) row[i] = from[i % 4];
  return row;
}
WK_INLINE Sums add_products(Sums sums, Sums row, Sums part) { return sums + row * part; }
WK_INLINE void store_group(int32_t *to, const Sums (&parts)[kParts]) {
  for (int i = 0; i < 16; ++i) {
    const Sums &part = parts[i / 4];
    const int first = i % 4 * 4;
    to[i] = part[first] + part[first + 1] + part[first + 2] + part[first + 3];
  }
}
#endif

constexpr int64_t kPartBytes = kQuadBytes / kParts;

// Sums of kRows rows, num_quads * 4 bytes each, by kGroups groups of columns, to result[r * kBlockColumns + c]. The
// inner loops unroll, and the sums stay in registers.
template <int kRows, int kGroups>
void multiply_tile(const Left *x, const int8_t *weight, int64_t num_quads, int32_t *result) {
  constexpr int kVectors = kGroups * kParts;
  const int64_t row_bytes = num_quads * kQuad, group_bytes = num_quads * kQuadBytes;
  Sums sums[kRows][kGroups][kParts];
#pragma GCC unroll 8
  for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 8
    for (int v = 0; v < kVectors; ++v) sums[r][v / kParts][v % kParts] = no_sums();
  }
  for (int64_t quad = 0; quad < num_quads; ++quad) {
    Sums parts[kVectors];
#pragma GCC unroll 8
    for (int v = 0; v < kVectors; ++v) {
      parts[v] = load_part(weight + v / kParts * group_bytes + quad * kQuadBytes + v % kParts * kPartBytes);
    }
#pragma GCC unroll 8
    for (int r = 0; r < kRows; ++r) {
      const Sums row = spread_quad(x + r * row_bytes + quad * kQuad);
#pragma GCC unroll 8
      for (int v = 0; v < kVectors; ++v) {
        Sums &sum = sums[r][v / kParts][v % kParts];
        sum = add_products(sum, row, parts[v]);
      }
    }
  }
#pragma GCC unroll 8
  for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 8
    for (int g = 0; g < kGroups; ++g) store_group(result + r * kBlockColumns + g * kGroupColumns, sums[r][g]);
  }
}

template <int kGroups>
void multiply_groups(const Left *x, int64_t num_rows, const int8_t *weight, int64_t num_quads, int32_t *result) {
  const int64_t row_bytes = num_quads * kQuad;
  int64_t row = 0;
  for (; row + kRowsAtOnce <= num_rows; row += kRowsAtOnce) {
    multiply_tile<kRowsAtOnce, kGroups>(x + row * row_bytes, weight, num_quads, result + row * kBlockColumns);
  }
  for (; row < num_rows; ++row) {
    multiply_tile<1, kGroups>(x + row * row_bytes, weight, num_quads, result + row * kBlockColumns);
  }
}

// Sums of `num_rows` rows by groups [begin, end) of columns.
void multiply(const Left *x, int64_t num_rows, const Linear8bit &call, int64_t begin, int64_t end, int32_t *result) {
  int64_t group = begin;
  const auto weight = [&] { return call.weight + group * call.num_quads * kQuadBytes; };
  const auto at = [&] { return result + (group - begin) * kGroupColumns; };
  for (; group + kGroupsAtOnce <= end; group += kGroupsAtOnce) {
    multiply_groups<kGroupsAtOnce>(x, num_rows, weight(), call.num_quads, at());
  }
  for (; group < end; ++group) multiply_groups<1>(x, num_rows, weight(), call.num_quads, at());
}

// The block's rows with the shift, one after the other, padded with what the weight's zeros meet.
void shift_rows(const Rows &x, int64_t begin, int64_t end, int64_t row_bytes, Left *result) {
  for (int64_t row = begin; row < end; ++row, result += row_bytes) {
    const int8_t *from = row_at<const int8_t>(x, row);
    for (int64_t k = 0; k < x.width; ++k) result[k] = static_cast<Left>(from[k] + kShift);
    for (int64_t k = x.width; k < row_bytes; ++k) result[k] = 0;
  }
}

void offsets(const Linear8bit &call, int64_t begin, int64_t end, int32_t *result) {
  for (int64_t group = begin; group < end; ++group) {
    const int8_t *weight = call.weight + group * call.num_quads * kQuadBytes;
    int32_t *sums = result + group * kGroupColumns;
    for (int64_t c = 0; c < kGroupColumns; ++c) sums[c] = 0;
    for (int64_t quad = 0; quad < call.num_quads && kShift; ++quad, weight += kQuadBytes) {
      for (int64_t c = 0; c < kGroupColumns; ++c) {
        const int8_t *four = weight + c * kQuad;
        sums[c] += kShift * (four[0] + four[1] + four[2] + four[3]);
      }
    }
  }
}

WK_INLINE Floats load_sums(const int32_t *from, const int32_t *offsets, Whole) {
  Masks sums, shift;
  __builtin_memcpy(&sums, from, sizeof sums);
  __builtin_memcpy(&shift, offsets, sizeof shift);
  return __builtin_convertvector(sums - shift, Floats);
}
inline Floats load_sums(const int32_t *from, const int32_t *offsets, Part part) {
  int32_t lanes[2][kLanes] = {};
  __builtin_memcpy(lanes[0], from, static_cast<size_t>(part.count) * sizeof(int32_t));
  __builtin_memcpy(lanes[1], offsets, static_cast<size_t>(part.count) * sizeof(int32_t));
  return load_sums(lanes[0], lanes[1], Whole{});
}

// x / 2 * (1 + tanh(sqrt(2 / pi) * (x + 0.044715 x^3))), which is x * sigmoid of twice that argument.
WK_INLINE Floats gelu(Floats x) {
  return x * sigmoid<float>(x * (splat(1.59576912f) + splat(0.0713548163f) * (x * x)));
}

// Calls take(i, value, extent) with each finished vector of a row's columns [first, last); i counts from 0.
template <class T, class Take>
WK_INLINE void each_result(const Linear8bit &call, int64_t row, int64_t first, int64_t last, const int32_t *sums, T,
                           const Take &take) {
  const float *weight_scale = call.weight_scale + first, *bias = call.bias + first;
  const int32_t *shift = call.offsets + first;
  const Floats x_scale = splat(call.x_scale[row]);
  const int64_t width = last - first;
  const auto product = [&](int64_t i, auto extent) {
    return load_sums(sums + i, shift + i, extent) * x_scale * load(weight_scale + i, extent) + load(bias + i, extent);
  };
  if (call.apply_gelu) {
    for_each_vector(width, [&](int64_t i, auto extent) { take(i, gelu(product(i, extent)), extent); });
  } else if (!call.residual.data) {
    for_each_vector(width, [&](int64_t i, auto extent) { take(i, product(i, extent), extent); });
  } else {
    const T *residual = row_at<const T>(call.residual, row) + first;
    if (!call.gate.data) {
      for_each_vector(
          width, [&](int64_t i, auto extent) { take(i, load(residual + i, extent) + product(i, extent), extent); });
      return;
    }
    const int64_t sample = row / call.length;
    const int64_t table = sample * call.index.num_rows + lookup(call.index, sample, row % call.length);
    const float *gate = row_at<const float>(call.gate, table) + first;
    for_each_vector(width, [&](int64_t i, auto extent) {
      take(i, load(residual + i, extent) + product(i, extent) * load(gate + i, extent), extent);
    });
  }
}

// Part of a row that is to become codes: kept until its largest size is known, which is returned.
float finish_values(const Linear8bit &call, int64_t row, int64_t first, int64_t last, const int32_t *sums,
                    float *values) {
  Words sizes = {};
  each_result(call, row, first, last, sums, float{}, [&](int64_t i, Floats value, auto extent) {
    store(values + first + i, value, extent);
    sizes = larger(sizes, size_bits(kept(value, extent)));
  });
  return largest(sizes);
}

void finish_floats(const Linear8bit &call, int64_t row, int64_t first, int64_t last, const int32_t *sums) {
  with_dtype(call.out.dtype, [&](auto type) {
    auto *out = row_at<decltype(type)>(call.out, row) + first;
    each_result(call, row, first, last, sums, type,
                [&](int64_t i, Floats value, auto extent) { store(out + i, value, extent); });
  });
}

void finish_codes(const Linear8bit &call, int64_t row, const float *values, float size) {
  with_codes(call.out.dtype, [&](auto code) {
    const float scale = scale_for(size, limit_of(code));
    call.out_scale[row] = scale;
    encode_row(row_at<decltype(code)>(call.out, row), values, scale, call.out.width);
  });
}

void forward(const Linear8bit &call, int64_t begin, int64_t end, const Linear8bitScratch &scratch) {
  const int64_t num_columns = call.out.width;
  float sizes[kMaxBlockRows] = {};
  Left *const rows = static_cast<Left *>(scratch.rows);
  shift_rows(call.x, begin, end, call.num_quads * kQuad, rows);
  for (int64_t first = 0; first < num_columns; first += kBlockColumns) {
    const int64_t last = first + kBlockColumns < num_columns ? first + kBlockColumns : num_columns;
    multiply(rows, end - begin, call, first / kGroupColumns, (last + kGroupColumns - 1) / kGroupColumns, scratch.sums);
    for (int64_t row = begin; row < end; ++row) {
      const int32_t *sums = scratch.sums + (row - begin) * kBlockColumns;
      if (!call.out_scale) {
        finish_floats(call, row, first, last, sums);
        continue;
      }
      const float size = finish_values(call, row, first, last, sums, scratch.values + (row - begin) * num_columns);
      float &largest_yet = sizes[row - begin];
      if (!(size <= largest_yet) && largest_yet == largest_yet) largest_yet = size;  // a NaN enters and stays
    }
  }
  for (int64_t row = begin; row < end && call.out_scale; ++row) {
    finish_codes(call, row, scratch.values + (row - begin) * num_columns, sizes[row - begin]);
  }
}

}  // namespace

extern const Linear8bitKernels linear_8bit_kernels = {offsets, forward};

}  // namespace WK_ISA
}  // namespace wk
