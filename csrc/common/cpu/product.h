// SPDX-License-Identifier: Apache-2.0
// Products of float matrices: rows by groups of 16 columns. A word of a row, 4 bytes, is spread over a vector and meets
// that word of each of the 16 columns, which lie side by side: a line of 64 bytes. A word is a float or, where
// AVX512-BF16 can multiply them, two consecutive bf16.
#pragma once
#include "common/cpu/vec.h"

namespace wk {
namespace WK_ISA {

constexpr int64_t kColumns = 16;  // of a group
constexpr int kGroupVectors = kColumns / kLanes;

// Elements of a word.
template <class T>
constexpr int64_t kWord = 4 / sizeof(T);

#if WK_X86_INTRINSICS && defined(__AVX512BF16__)
constexpr bool kMultipliesBf16 = true;
WK_INLINE Floats add_product(Floats sum, Floats row, Floats line, bf16) {
  return (Floats)_mm512_dpbf16_ps((__m512)sum, (__m512bh)row, (__m512bh)line);
}
#else
constexpr bool kMultipliesBf16 = false;
#endif
WK_INLINE Floats add_product(Floats sum, Floats row, Floats line, float) { return sum + row * line; }

#if WK_X86_INTRINSICS && defined(__AVX512F__)
constexpr int kTileRows = 8, kTileGroups = 2;
#elif WK_X86_INTRINSICS && defined(__AVX2__)
constexpr int kTileRows = 4, kTileGroups = 1;
#else
constexpr int kTileRows = 2, kTileGroups = 1;
#endif

// Calls body with the type whose words tensors of that dtype are multiplied in.
template <class Body>
WK_INLINE void with_operand(int32_t dtype, const Body &body) {
#if WK_X86_INTRINSICS && defined(__AVX512BF16__)
  if (dtype == WK_BFLOAT16) return body(bf16{});
#endif
  (void)dtype;
  return body(float{});
}

template <class T>
WK_INLINE Floats spread_word(const T *from) {
  float word;
  __builtin_memcpy(&word, from, sizeof word);
  return splat(word);
}
template <class T>
WK_INLINE Floats load_words(const T *from) {
  Floats words;
  __builtin_memcpy(&words, from, sizeof words);
  return words;
}

// Words of a row lie side by side, or words of rows do: the left side of a product, or its transpose.
enum class Side { kByRow, kByWord };

// Strides count elements. sums = rows x groups, or sums * decays[row] + rows x groups.
template <class T>
struct Product {
  const T *rows;
  int64_t stride;  // of rows, or with Side::kByWord of words
  const T *groups;
  int64_t group_stride;
  int64_t num_words;
  float *sums;
  int64_t sums_stride;
  const float *decays;  // null: the sums are new
};

// kRows rows by kGroups groups. The inner loops unroll, and the sums stay in registers.
template <Side kSide, int kRows, int kGroups, class T>
void multiply_tile(const Product<T> &of, int64_t row, int64_t group) {
  constexpr int kVectors = kGroups * kGroupVectors;
  const int64_t group_stride = of.group_stride, num_words = of.num_words;
  const int64_t row_step = kSide == Side::kByRow ? of.stride : kWord<T>;
  const int64_t word_step = kSide == Side::kByRow ? kWord<T> : of.stride;
  const T *rows = of.rows + row * row_step;
  const T *groups = of.groups + group * group_stride;
  Floats sums[kRows][kVectors];
#pragma GCC unroll 16
  for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 16
    for (int v = 0; v < kVectors; ++v) sums[r][v] = zeros();
  }
  for (int64_t word = 0; word < num_words; ++word) {
    Floats lines[kVectors];
#pragma GCC unroll 16
    for (int v = 0; v < kVectors; ++v) {
      lines[v] = load_words(groups + v / kGroupVectors * group_stride + v % kGroupVectors * kLanes * kWord<T>);
    }
    groups += kColumns * kWord<T>;
#pragma GCC unroll 16
    for (int r = 0; r < kRows; ++r) {
      const Floats spread = spread_word(rows + r * row_step);
#pragma GCC unroll 16
      for (int v = 0; v < kVectors; ++v) sums[r][v] = add_product(sums[r][v], spread, lines[v], T{});
    }
    rows += word_step;
  }
  float *to = of.sums + row * of.sums_stride + group * kColumns;
  const float *decays = of.decays ? of.decays + row : nullptr;
#pragma GCC unroll 16
  for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 16
    for (int v = 0; v < kVectors; ++v) {
      float *at = to + r * of.sums_stride + v * kLanes;
      store(at, decays ? load(at, Whole{}) * splat(decays[r]) + sums[r][v] : sums[r][v], Whole{});
    }
  }
}

// Rows [0, num_rows), a multiple of kTileRows, by groups [0, num_groups).
template <Side kSide, class T>
void multiply(const Product<T> &of, int64_t num_rows, int64_t num_groups) {
  int64_t group = 0;
  for (; group + kTileGroups <= num_groups; group += kTileGroups) {
    for (int64_t row = 0; row < num_rows; row += kTileRows)
      multiply_tile<kSide, kTileRows, kTileGroups>(of, row, group);
  }
  for (; group < num_groups; ++group) {
    for (int64_t row = 0; row < num_rows; row += kTileRows) multiply_tile<kSide, kTileRows, 1>(of, row, group);
  }
}

// ---- packing ----

// The words of two rows of numbers, one below the other: floats are words by themselves.
WK_INLINE Words paired(Floats upper, Floats lower) {
  return extend(narrow(upper, bf16{})) | (extend(narrow(lower, bf16{})) << 16);
}

// Groups of 16 columns from 16 rows each, whose words lie side by side: [rows / 16][width / word][16]. `num_rows` are
// rounded up to whole groups by zeros.
template <class T, class From>
void pack_transposed(T *to, const From *from, int64_t stride, int64_t num_rows, int64_t width) {
  constexpr int64_t kChunk = kColumns * kWord<T>;  // columns that make 16 words
  for (int64_t first = 0; first < num_rows; first += kColumns, to += kColumns * width) {
    const int64_t count = num_rows - first < kColumns ? num_rows - first : kColumns;
    for (int64_t c = 0; c < width; c += kChunk) {
      const int64_t columns = width - c < kChunk ? width - c : kChunk;
      alignas(64) T block[kColumns][kChunk] = {};
      for (int64_t r = 0; r < count; ++r) {
        const From *row = from + (first + r) * stride + c;
        for (int64_t i = 0; i < columns; i += kLanes) store(&block[r][i], load(row + i, Whole{}), Whole{});
      }
      uint32_t words[kColumns][kColumns];
      __builtin_memcpy(words, block, sizeof words);
      uint32_t *lines = reinterpret_cast<uint32_t *>(to + c * kColumns);
      for (int64_t w = 0; w < columns / kWord<T>; ++w) {
        for (int64_t r = 0; r < kColumns; ++r) lines[w * kColumns + r] = words[r][w];
      }
    }
  }
}

// Groups of 16 columns of rows that are summed over: [width / 16][padded / word][16]. Rows from `num_rows` to `padded`
// are zeros.
template <class From>
void pack_lines(float *to, const From *from, int64_t stride, int64_t num_rows, int64_t padded, int64_t width) {
  for (int64_t row = 0; row < padded; ++row) {
    for (int64_t i = 0; i < width; i += kLanes) {
      float *line = to + i / kColumns * padded * kColumns + row * kColumns + i % kColumns;
      store(line, row < num_rows ? load(from + row * stride + i, Whole{}) : zeros(), Whole{});
    }
  }
}
template <class From>
void pack_lines(bf16 *to, const From *from, int64_t stride, int64_t num_rows, int64_t padded, int64_t width) {
  for (int64_t row = 0; row < padded; row += 2) {
    for (int64_t i = 0; i < width; i += kLanes) {
      const From *pair = from + row * stride + i;
      const Floats upper = row < num_rows ? load(pair, Whole{}) : zeros();
      const Floats lower = row + 1 < num_rows ? load(pair + stride, Whole{}) : zeros();
      const Words words = paired(upper, lower);
      __builtin_memcpy(to + i / kColumns * padded * kColumns + row * kColumns + i % kColumns * 2, &words, sizeof words);
    }
  }
}

}  // namespace WK_ISA
}  // namespace wk
