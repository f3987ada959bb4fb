// SPDX-License-Identifier: Apache-2.0
// Products of bytes, summed exactly in 32 bits: rows by groups of 16 columns. Four bytes of a row are spread over a
// vector and meet the four bytes of each column, which lie side by side as packed.h says.
//
// AVX-512 VNNI multiplies unsigned by signed bytes: signed rows go in with kShift added, and kShift times the column's
// sum comes off afterwards. Narrower sets widen both to 16 bits, where pairs of products are exact.
#pragma once
#include "common/cpu/vec.h"
#include "common/packed.h"

namespace wk {
namespace WK_ISA {

// How a group of 16 columns is summed: kParts vectors, each with the sums of 16 / kParts columns.
#if WK_X86_INTRINSICS && defined(__AVX512VNNI__)
constexpr int kParts = 1;
constexpr int32_t kShift = 128;
typedef uint8_t Left;
typedef __m512i Sums;
WK_INLINE Sums no_sums() { return _mm512_setzero_si512(); }
WK_INLINE Sums load_part(const int8_t *from) { return _mm512_loadu_si512(from); }
WK_INLINE Sums spread_quad(const uint8_t *from) {
  int32_t quad;
  __builtin_memcpy(&quad, from, sizeof quad);
  return _mm512_set1_epi32(quad);
}
WK_INLINE Sums add_products(Sums sums, Sums row, Sums part) { return _mm512_dpbusd_epi32(sums, row, part); }
WK_INLINE void store_group(int32_t *to, const Sums (&parts)[kParts]) { _mm512_storeu_si512(to, parts[0]); }
#elif WK_X86_INTRINSICS && defined(__AVX2__)
constexpr int kParts = 4;
constexpr int32_t kShift = 0;
typedef int8_t Left;
typedef __m256i Sums;  // two neighbouring sums for each column
WK_INLINE Sums no_sums() { return _mm256_setzero_si256(); }
WK_INLINE Sums load_part(const int8_t *from) {
  return _mm256_cvtepi8_epi16(_mm_loadu_si128(reinterpret_cast<const __m128i *>(from)));
}
WK_INLINE Sums spread_quad(const int8_t *from) {
  int32_t quad;
  __builtin_memcpy(&quad, from, sizeof quad);
  return _mm256_cvtepi8_epi16(_mm_set1_epi32(quad));
}
WK_INLINE Sums spread_quad(const uint8_t *from) {
  int32_t quad;
  __builtin_memcpy(&quad, from, sizeof quad);
  return _mm256_cvtepu8_epi16(_mm_set1_epi32(quad));
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
constexpr int kParts = 8;
constexpr int32_t kShift = 0;
typedef int8_t Left;
typedef __m128i Sums;  // two neighbouring sums for each column
WK_INLINE Sums no_sums() { return _mm_setzero_si128(); }
WK_INLINE Sums widen_bytes(__m128i bytes) { return _mm_srai_epi16(_mm_unpacklo_epi8(bytes, bytes), 8); }
WK_INLINE Sums load_part(const int8_t *from) {
  return widen_bytes(_mm_loadl_epi64(reinterpret_cast<const __m128i *>(from)));
}
WK_INLINE Sums spread_quad(const int8_t *from) {
  int32_t quad;
  __builtin_memcpy(&quad, from, sizeof quad);
  return widen_bytes(_mm_set1_epi32(quad));
}
WK_INLINE Sums spread_quad(const uint8_t *from) {
  int32_t quad;
  __builtin_memcpy(&quad, from, sizeof quad);
  return _mm_unpacklo_epi8(_mm_set1_epi32(quad), _mm_setzero_si128());
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
constexpr int kParts = 4;
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
template <class Byte>
WK_INLINE Sums spread_quad(const Byte *from) {
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

// Products of some rows with some groups of columns: what each is, how far apart they lie in bytes, and where sums of
// rows lie, in numbers.
template <class Byte>
struct Product {
  const Byte *rows;
  int64_t row_bytes;
  const int8_t *groups;
  int64_t group_bytes;
  int64_t num_quads;
  int32_t *sums;
  int64_t stride;
};

// kRows rows by kGroups groups. The inner loops unroll, and the sums stay in registers.
template <int kRows, int kGroups, class Byte>
void multiply_tile(const Product<Byte> &of, int64_t row, int64_t group) {
  constexpr int kVectors = kGroups * kParts;
  const int64_t row_bytes = of.row_bytes, group_bytes = of.group_bytes, num_quads = of.num_quads;
  const Byte *rows = of.rows + row * row_bytes;
  const int8_t *groups = of.groups + group * group_bytes;
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
      parts[v] = load_part(groups + v / kParts * group_bytes + quad * kQuadBytes + v % kParts * kPartBytes);
    }
#pragma GCC unroll 8
    for (int r = 0; r < kRows; ++r) {
      const Sums row = spread_quad(rows + r * row_bytes + quad * kQuad);
#pragma GCC unroll 8
      for (int v = 0; v < kVectors; ++v) {
        Sums &sum = sums[r][v / kParts][v % kParts];
        sum = add_products(sum, row, parts[v]);
      }
    }
  }
  int32_t *to = of.sums + row * of.stride + group * kGroupColumns;
#pragma GCC unroll 8
  for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 8
    for (int g = 0; g < kGroups; ++g) store_group(to + r * of.stride + g * kGroupColumns, sums[r][g]);
  }
}

// Rows [0, num_rows) by groups [0, num_groups), kRows by kGroups at once where there are as many.
template <int kRows, int kGroups, class Byte>
void multiply(const Product<Byte> &of, int64_t num_rows, int64_t num_groups) {
  int64_t group = 0;
  for (; group + kGroups <= num_groups; group += kGroups) {
    int64_t row = 0;
    for (; row + kRows <= num_rows; row += kRows) multiply_tile<kRows, kGroups>(of, row, group);
    for (; row < num_rows; ++row) multiply_tile<1, kGroups>(of, row, group);
  }
  for (; group < num_groups; ++group) {
    int64_t row = 0;
    for (; row + kRows <= num_rows; row += kRows) multiply_tile<kRows, 1>(of, row, group);
    for (; row < num_rows; ++row) multiply_tile<1, 1>(of, row, group);
  }
}

// Sums of a row less what the shift added, as floats.
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

}  // namespace WK_ISA
}  // namespace wk
