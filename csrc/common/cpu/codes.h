// SPDX-License-Identifier: Apache-2.0
// 8-bit codes: how a row of floats becomes int8 or fp8 (e4m3), with one scale.
#pragma once
#include "common/cpu/stream.h"

namespace wk {
namespace WK_ISA {

typedef uint8_t Bytes __attribute__((vector_size(kLanes)));

WK_INLINE float limit_of(int8_t) { return 127.0f; }
WK_INLINE float limit_of(fp8) { return 448.0f; }

// The low byte of each word.
#if WK_X86_INTRINSICS && defined(__AVX512F__)
WK_INLINE Bytes low_bytes(Words words) { return (Bytes)_mm512_maskz_cvtepi32_epi8(0xffff, (__m512i)words); }
#elif WK_X86_INTRINSICS && defined(__AVX2__)
WK_INLINE Bytes low_bytes(Words words) {
  const __m256i bytes = (__m256i)(words & 0xffu);
  const __m128i halves = _mm_packus_epi32(_mm256_castsi256_si128(bytes), _mm256_extracti128_si256(bytes, 1));
  const __m128i packed = _mm_packus_epi16(halves, halves);
  Bytes result;
  __builtin_memcpy(&result, &packed, sizeof result);
  return result;
}
#else
WK_INLINE Bytes low_bytes(Words words) { return __builtin_convertvector(words & 0xffu, Bytes); }
#endif

// Adding 1.5 * 2^23 rounds to an integer, ties to even, and leaves it in the low mantissa bits.
WK_INLINE Bytes encode(Floats value, int8_t) { return low_bytes((Words)(value + splat(12582912.0f))); }

// Adding 2^(e+20) leaves fp32 with the ulp that e4m3 has at exponent e (at least -6, the subnormals'), so the sum
// rounds as e4m3 would; then one fp32 product moves the exponent bias.
WK_INLINE Bytes encode(Floats value, fp8) {
  const Words sign = (Words)value & 0x80000000u;
  const Floats size = (Floats)((Words)value ^ sign);
  const Words exponent = (Words)size & 0x7f800000u;
  const Words floor_exponent = Words{} + 0x3c800000u;
  const Words used = select((Masks)(exponent < floor_exponent), floor_exponent, exponent);
  const Floats magic = (Floats)(used + (20u << 23));
  const Floats rounded = (size + magic) - magic;
  return low_bytes(((Words)(rounded * splat(0x1p-120f)) >> 20) | (sign >> 24));
}

// Four vectors of codes.
template <class Code>
WK_INLINE Block encode_four(const Floats (&values)[4], Code code) {
  Bytes parts[4];
  for (int k = 0; k < 4; ++k) parts[k] = encode(values[k], code);
  Block result;
  __builtin_memcpy(&result, parts, sizeof result);
  return result;
}
// In int8 they take half the instructions that four times one would.
#if WK_X86_INTRINSICS && defined(__AVX512F__)
WK_INLINE Block encode_four(const Floats (&values)[4], int8_t) {
  constexpr int kNearest = _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC;
  const auto whole = [&](int k) { return _mm512_maskz_cvt_roundps_epi32(0xffff, (__m512)values[k], kNearest); };
  const __m512i low = _mm512_packs_epi32(whole(0), whole(1)), high = _mm512_packs_epi32(whole(2), whole(3));
  const Words order = {0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15};
  return (Block)_mm512_maskz_permutexvar_epi32(0xffff, (__m512i)order, _mm512_packs_epi16(low, high));
}
#elif WK_X86_INTRINSICS && defined(__AVX2__)
WK_INLINE Block encode_four(const Floats (&values)[4], int8_t) {
  const auto whole = [&](int k) { return _mm256_cvtps_epi32((__m256)values[k]); };
  const __m256i low = _mm256_packs_epi32(whole(0), whole(1)), high = _mm256_packs_epi32(whole(2), whole(3));
  const Words order = {0, 4, 1, 5, 2, 6, 3, 7};
  return (Block)_mm256_permutevar8x32_epi32(_mm256_packs_epi16(low, high), (__m256i)order);
}
#elif WK_X86_INTRINSICS
WK_INLINE Block encode_four(const Floats (&values)[4], int8_t) {
  const auto whole = [&](int k) { return _mm_cvtps_epi32((__m128)values[k]); };
  return (Block)_mm_packs_epi16(_mm_packs_epi32(whole(0), whole(1)), _mm_packs_epi32(whole(2), whole(3)));
}
#endif

template <class Code>
WK_INLINE void store_codes(Code *to, Bytes codes, Whole) {
  __builtin_memcpy(to, &codes, sizeof codes);
}
template <class Code>
inline void store_codes(Code *to, Bytes codes, Part part) {
  __builtin_memcpy(to, &codes, static_cast<size_t>(part.count));
}

// Sizes are compared as integers: their order is that of the numbers, and a NaN is the largest of all.
WK_INLINE Words size_bits(Floats value) { return (Words)value & 0x7fffffffu; }

#if WK_X86_INTRINSICS && defined(__AVX512F__)
WK_INLINE Words larger(Words a, Words b) { return (Words)_mm512_maskz_max_epu32(0xffff, (__m512i)a, (__m512i)b); }
#elif WK_X86_INTRINSICS && defined(__AVX2__)
WK_INLINE Words larger(Words a, Words b) { return (Words)_mm256_max_epu32((__m256i)a, (__m256i)b); }
#else
WK_INLINE Words larger(Words a, Words b) { return select((Masks)((Masks)a > (Masks)b), a, b); }
#endif

// In registers: the way from sizes to their scale is long, and codes wait for it.
WK_INLINE float largest(Words sizes) {
  typedef int32_t Quad __attribute__((vector_size(16)));
  Quad parts[kLanes / 4];
  __builtin_memcpy(parts, &sizes, sizeof sizes);
  const auto larger_of = [](Quad a, Quad b) { return a > b ? a : b; };
  Quad most = parts[0];
  for (int i = 1; i < kLanes / 4; ++i) most = larger_of(most, parts[i]);
#if defined(__clang__)
  most = larger_of(most, __builtin_shufflevector(most, most, 2, 3, 0, 1));
  most = larger_of(most, __builtin_shufflevector(most, most, 1, 0, 3, 2));
#else
  most = larger_of(most, __builtin_shuffle(most, Quad{2, 3, 0, 1}));
  most = larger_of(most, __builtin_shuffle(most, Quad{1, 0, 3, 2}));
#endif
  float value;
  __builtin_memcpy(&value, &most, sizeof value);
  return value;
}

// max |x| of a row; NaN if it holds one.
template <class T>
float largest_size(const T *x, int64_t width) {
  Words sizes[2] = {};
  int64_t i = 0;
  for (; i + 2 * kLanes <= width; i += 2 * kLanes) {
    sizes[0] = larger(sizes[0], size_bits(load(x + i, Whole{})));
    sizes[1] = larger(sizes[1], size_bits(load(x + i + kLanes, Whole{})));
  }
  for_each_vector(width - i,
                  [&](int64_t k, auto extent) { sizes[0] = larger(sizes[0], size_bits(load(x + i + k, extent))); });
  return largest(larger(sizes[0], sizes[1]));
}

// The scale of a row whose largest size is `size`. Its floor keeps 1 / scale finite; NaN and infinity stay.
WK_INLINE float scale_for(float size, float limit) {
  const float least = limit * 0x1p-126f;
  return (size < least ? least : size) / limit;
}
// 1 / scale_for(size, limit), not after it.
WK_INLINE float inverse_scale_for(float size, float limit) {
  const float least = limit * 0x1p-126f;
  return limit / (size < least ? least : size);
}

// Codes of value(i, extent) for each vector of a row, past the caches if that is wanted.
template <class Code, class Value>
WK_INLINE void encode_vectors(Code *codes, int64_t width, bool is_streamed, const Value &value) {
  int64_t done = 0;
  for (; done + 4 * kLanes <= width; done += 4 * kLanes) {
    Floats values[4];
    for (int k = 0; k < 4; ++k) values[k] = value(done + k * kLanes, Whole{});
    put(codes + done, encode_four(values, Code{}), is_streamed);
  }
  for_each_vector(width - done, [&](int64_t i, auto extent) {
    store_codes(codes + done + i, encode(value(done + i, extent), Code{}), extent);
  });
}

// Codes of a row under its scale. A scale that is not finite, which a NaN or an infinity in the row makes, leaves
// zeros.
template <class Code, class T, class Next = NothingAhead>
void encode_row(Code *codes, const T *x, float scale, int64_t width, bool is_streamed, const Next &next = {},
                int pass = 0) {
  if (scale - scale != 0.0f) {
    __builtin_memset(codes, 0, static_cast<size_t>(width));
    return;
  }
  const Floats inverse = splat(1.0f / scale);
  encode_vectors(codes, width, is_streamed, [&](int64_t i, auto extent) {
    next.ask(pass, i);
    return load(x + i, extent) * inverse;
  });
}

// Calls body with a value of the code type that `dtype` names.
template <class Body>
WK_INLINE void with_codes(int32_t dtype, const Body &body) {
  if (dtype == WK_INT8) return body(int8_t{});
  return body(fp8{});
}

// Sizes as they were read, as integers of that width: 16 bits need not be widened to be compared.
WK_INLINE Words load_size(const float *from, Whole whole) { return size_bits(load(from, whole)); }
WK_INLINE Words load_size(const float *from, Part part) { return size_bits(load(from, part)); }
template <class T>
WK_INLINE Halves load_size(const T *from, Whole) {
  Halves bits;
  __builtin_memcpy(&bits, from, sizeof bits);
  return bits & 0x7fff;
}
template <class T>
WK_INLINE Halves load_size(const T *from, Part part) {
  Halves bits = {};
  __builtin_memcpy(&bits, from, static_cast<size_t>(part.count) * sizeof(T));
  return bits & 0x7fff;
}
WK_INLINE Words larger_size(Words a, Words b) { return larger(a, b); }
WK_INLINE Halves larger_size(Halves a, Halves b) { return a > b ? a : b; }
WK_INLINE Words widen_size(Words size, float) { return size; }
template <class T>
WK_INLINE Words widen_size(Halves size, T type) {
  return (Words)widen(size, type);
}

}  // namespace WK_ISA
}  // namespace wk
