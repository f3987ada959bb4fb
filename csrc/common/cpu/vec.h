// SPDX-License-Identifier: Apache-2.0
// Vector words for CPU kernels: one float vector as wide as the instruction set allows, and what kernels say with it.
//
// Compiled once per instruction set with WK_ISA naming the namespace. Everything here lives in that namespace and
// nothing of the standard library is used beyond its plain types: an inline library function compiled for AVX-512 could
// be the copy the linker keeps for every caller.
#pragma once
#include <stddef.h>
#include <stdint.h>

#include "common/tensor.h"

#ifndef WK_ISA
#error "WK_ISA must name the namespace of this instruction set"
#endif

#if defined(__x86_64__) && !defined(WK_FORCE_PORTABLE)
#define WK_X86_INTRINSICS 1
#include <immintrin.h>
#else
#define WK_X86_INTRINSICS 0
#endif

#if WK_X86_INTRINSICS && defined(__AVX512F__)
#define WK_VECTOR_BYTES 64
#elif WK_X86_INTRINSICS && defined(__AVX2__)
#define WK_VECTOR_BYTES 32
#else
#define WK_VECTOR_BYTES 16
#endif

namespace wk {
namespace WK_ISA {

constexpr int kLanes = WK_VECTOR_BYTES / 4;

typedef float Floats __attribute__((vector_size(WK_VECTOR_BYTES)));
typedef uint32_t Words __attribute__((vector_size(WK_VECTOR_BYTES)));
typedef int32_t Masks __attribute__((vector_size(WK_VECTOR_BYTES)));
typedef uint16_t Halves __attribute__((vector_size(WK_VECTOR_BYTES / 2)));
typedef uint8_t Block __attribute__((vector_size(WK_VECTOR_BYTES)));

// Minus zero, not plus: v - 0 is v for every v, -0 included, so that it costs nothing. (Writing the lanes in a loop
// becomes narrow stores and a wide load that waits for them: it made layer_norm_modulate's backward three times
// slower.)
WK_INLINE Floats splat(float value) { return value - Floats{}; }
WK_INLINE Floats zeros() { return Floats{}; }
WK_INLINE Floats select(Masks mask, Floats yes, Floats no) {
  return (Floats)(((Words)mask & (Words)yes) | (~(Words)mask & (Words)no));
}
WK_INLINE Words select(Masks mask, Words yes, Words no) { return ((Words)mask & yes) | (~(Words)mask & no); }

// ---- fp32 <-> 16-bit formats ----

// Zero-extend, and take the lower halves of words below 2^16. GCC 12 makes twice the instructions of convertvector.
#if WK_X86_INTRINSICS && defined(__AVX512F__)
// Masked with a full mask: the same instruction, without a false warning of GCC 12 about the unmasked form (bug
// 105593).
WK_INLINE Words extend(Halves bits) { return (Words)_mm512_maskz_cvtepu16_epi32(0xffff, (__m256i)bits); }
WK_INLINE Halves lower(Words bits) { return (Halves)_mm512_maskz_cvtepi32_epi16(0xffff, (__m512i)bits); }
#elif WK_X86_INTRINSICS && defined(__AVX2__)
WK_INLINE Words extend(Halves bits) { return (Words)_mm256_cvtepu16_epi32((__m128i)bits); }
WK_INLINE Halves lower(Words bits) {
  const __m256i words = (__m256i)bits;
  return (Halves)_mm_packus_epi32(_mm256_castsi256_si128(words), _mm256_extracti128_si256(words, 1));
}
#else
WK_INLINE Words extend(Halves bits) { return __builtin_convertvector(bits, Words); }
WK_INLINE Halves lower(Words bits) { return __builtin_convertvector(bits, Halves); }
#endif

// The nearest bf16, ties to even; NaN becomes a quiet NaN. The instruction for it makes 0 of what is below 2^-126.
#if WK_X86_INTRINSICS && defined(__AVX512BF16__)
WK_INLINE Halves narrow(Floats value, bf16) { return (Halves)_mm512_maskz_cvtneps_pbh(0xffff, (__m512)value); }
#else
WK_INLINE Halves narrow(Floats value, bf16) {
  const Words bits = (Words)value;
  const Words nearest = bits + 0x7fffu + ((bits >> 16) & 1u);
  return lower(select(value != value, Words{} + 0x7fc00000u, nearest) >> 16);
}
#endif
#if WK_X86_INTRINSICS && defined(__AVX512F__)
// One instruction where extending and shifting are two.
WK_INLINE Floats widen(Halves bits, bf16) {
  typedef uint16_t Pairs __attribute__((vector_size(64)));
  const Pairs order = {0, 0, 0, 1, 0, 2,  0, 3,  0, 4,  0, 5,  0, 6,  0, 7,
                       0, 8, 0, 9, 0, 10, 0, 11, 0, 12, 0, 13, 0, 14, 0, 15};
  return (Floats)_mm512_maskz_permutexvar_epi16(0xaaaaaaaa, (__m512i)order, _mm512_castsi256_si512((__m256i)bits));
}
#else
WK_INLINE Floats widen(Halves bits, bf16) { return (Floats)(extend(bits) << 16); }
#endif

#if WK_X86_INTRINSICS && defined(__AVX512F__)
WK_INLINE Floats widen(Halves bits, fp16) { return (Floats)_mm512_maskz_cvtph_ps(0xffff, (__m256i)bits); }
WK_INLINE Halves narrow(Floats value, fp16) {
  constexpr int kNearest = _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC;
  return (Halves)_mm512_maskz_cvtps_ph(0xffff, (__m512)value, kNearest);
}
#elif WK_X86_INTRINSICS && defined(__F16C__)
WK_INLINE Floats widen(Halves bits, fp16) { return (Floats)_mm256_cvtph_ps((__m128i)bits); }
WK_INLINE Halves narrow(Floats value, fp16) {
  return (Halves)_mm256_cvtps_ph((__m256)value, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
}
#else
// Shift the fields into place, then let one fp32 operation move the exponent bias, subnormals included.
WK_INLINE Floats widen(Halves half, fp16) {
  const Words bits = extend(half);
  const Words size = (bits & 0x7fffu) << 13;
  const Floats scaled = (Floats)size * splat(0x1p112f);
  const Words special = size | 0x7f800000u;
  const Words result = select((Masks)(size >= (0x7c00u << 13)), special, (Words)scaled);
  return (Floats)(result | ((bits & 0x8000u) << 16));
}
WK_INLINE Halves narrow(Floats value, fp16) {
  const Words sign = (Words)value & 0x80000000u;
  const Floats size = (Floats)((Words)value ^ sign);
  // Adding 2^(e+13) leaves fp32 with the ulp that fp16 has at exponent e, so the sum rounds as fp16 would.
  const Words exponent = (Words)size & 0x7f800000u;
  const Words floor_exponent = Words{} + 0x38800000u;
  const Words used = select((Masks)(exponent < floor_exponent), floor_exponent, exponent);
  const Floats magic = (Floats)(used + (13u << 23));
  const Floats rounded = (size + magic) - magic;
  const Floats rebased = rounded * splat(0x1p-112f);
  Words bits = (Words)rebased >> 13;
  bits = select((Masks)(size >= splat(65520.0f)), Words{} + 0x7c00u, bits);
  bits = select((Masks)(size != size), Words{} + 0x7e00u, bits);
  return lower(bits | (sign >> 16));
}
#endif

// ---- memory ----
//
// A store may alias anything, so loops keep the pointers they use in local variables: members would be read again after
// every store.

// How much of a vector an access touches. The lanes past a Part read as zero and are not written.
struct Whole {};
struct Part {
  int64_t count;
};

WK_INLINE Floats load(const float *from, Whole) {
  Floats value;
  __builtin_memcpy(&value, from, sizeof value);
  return value;
}
WK_INLINE void store(float *to, Floats value, Whole) { __builtin_memcpy(to, &value, sizeof value); }

template <class T>
WK_INLINE Floats load(const T *from, Whole) {
  Halves bits;
  __builtin_memcpy(&bits, from, sizeof bits);
  return widen(bits, T{});
}
template <class T>
WK_INLINE void store(T *to, Floats value, Whole) {
  const Halves bits = narrow(value, T{});
  __builtin_memcpy(to, &bits, sizeof bits);
}

template <class T>
inline Floats load(const T *from, Part part) {
  T lanes[kLanes] = {};
  __builtin_memcpy(lanes, from, static_cast<size_t>(part.count) * sizeof(T));
  return load(lanes, Whole{});
}
template <class T>
inline void store(T *to, Floats value, Part part) {
  T lanes[kLanes];
  store(lanes, value, Whole{});
  __builtin_memcpy(to, lanes, static_cast<size_t>(part.count) * sizeof(T));
}

// The row that is read from memory next. A row is read again from the first cache once or more, and memory would rest
// meanwhile; so each of these passes asks for its share of the next row, a little with each vector. Asked for all at
// once, lines wait for each other. (layer_norm_modulate_8bit, 8192 x 1536 fp32, Zen 4, 2 threads: 2.95 ms without, 2.95
// asked for in one pass of three, 2.5 in shares.)
// kLocality: 3 for the first cache, 2 for the second, where more than the first holds lies in between.
template <int kPasses, class T, int kLocality = 3>
struct Ahead {
  const T *row;  // need not be readable
  int64_t width;
  static constexpr int64_t kStep = kPasses * 64 / sizeof(T);  // of i, from one line to the next
  WK_INLINE void ask(int pass, int64_t i) const {
    __builtin_prefetch(row + pass * width / kPasses + static_cast<uint64_t>(i) / kPasses, 0, kLocality);
  }
};
struct NothingAhead {
  WK_INLINE void ask(int, int64_t) const {}
};
// The same for memory that is about to be written, where writing jumps about.
inline void ask_to_write(const void *to, int64_t bytes) {
  for (int64_t i = 0; i < bytes; i += 64) __builtin_prefetch(static_cast<const char *>(to) + i, 1);
}

// The value with 0 in the lanes past the end, for sums of what is not 0 there by itself.
WK_INLINE Floats kept(Floats value, Whole) { return value; }
WK_INLINE Floats kept(Floats value, Part part) {
  for (int64_t i = part.count; i < kLanes; ++i) value[i] = 0.0f;
  return value;
}

// The value as it reads back from a T.
WK_INLINE Floats round_to(Floats value, float) { return value; }
WK_INLINE Floats round_to(Floats value, bf16) { return widen(narrow(value, bf16{}), bf16{}); }
WK_INLINE Floats round_to(Floats value, fp16) { return widen(narrow(value, fp16{}), fp16{}); }

// ---- arithmetic ----

inline float sum(Floats value) {
  typedef float Quad __attribute__((vector_size(16)));
  Quad parts[kLanes / 4];
  __builtin_memcpy(parts, &value, sizeof value);
  Quad total = parts[0];
  for (int i = 1; i < kLanes / 4; ++i) total += parts[i];
  return (total[0] + total[1]) + (total[2] + total[3]);
}

// (a0, a1, a2, a3, ...) -> (a1, a0, a3, a2, ...)
WK_INLINE Floats swap_pairs(Floats value) {
#if WK_VECTOR_BYTES == 64
  const Masks order = {1, 0, 3, 2, 5, 4, 7, 6, 9, 8, 11, 10, 13, 12, 15, 14};
#elif WK_VECTOR_BYTES == 32
  const Masks order = {1, 0, 3, 2, 5, 4, 7, 6};
#else
  const Masks order = {1, 0, 3, 2};
#endif
#if defined(__clang__)
  Floats result;
  for (int i = 0; i < kLanes; ++i) result[i] = value[order[i]];
  return result;
#else
  return __builtin_shuffle(value, order);
#endif
}

WK_INLINE float root(float value) { return __builtin_sqrtf(value); }

#if WK_X86_INTRINSICS && defined(__AVX512F__)
WK_INLINE Floats root(Floats value) { return (Floats)_mm512_maskz_sqrt_ps(0xffff, (__m512)value); }
#elif WK_X86_INTRINSICS && defined(__AVX2__)
WK_INLINE Floats root(Floats value) { return (Floats)_mm256_sqrt_ps((__m256)value); }
#elif WK_X86_INTRINSICS
WK_INLINE Floats root(Floats value) { return (Floats)_mm_sqrt_ps((__m128)value); }
#else
WK_INLINE Floats root(Floats value) {
  for (int i = 0; i < kLanes; ++i) value[i] = __builtin_sqrtf(value[i]);
  return value;
}
#endif

// The smaller and the larger of both; NaN in `value` stays.
#if WK_X86_INTRINSICS && defined(__AVX512F__)
WK_INLINE Floats at_most(Floats value, Floats bound) {
  return (Floats)_mm512_maskz_min_ps(0xffff, (__m512)bound, (__m512)value);
}
WK_INLINE Floats at_least(Floats value, Floats bound) {
  return (Floats)_mm512_maskz_max_ps(0xffff, (__m512)bound, (__m512)value);
}
#elif WK_X86_INTRINSICS && defined(__AVX2__)
WK_INLINE Floats at_most(Floats value, Floats bound) { return (Floats)_mm256_min_ps((__m256)bound, (__m256)value); }
WK_INLINE Floats at_least(Floats value, Floats bound) { return (Floats)_mm256_max_ps((__m256)bound, (__m256)value); }
#elif WK_X86_INTRINSICS
WK_INLINE Floats at_most(Floats value, Floats bound) { return (Floats)_mm_min_ps((__m128)bound, (__m128)value); }
WK_INLINE Floats at_least(Floats value, Floats bound) { return (Floats)_mm_max_ps((__m128)bound, (__m128)value); }
#else
WK_INLINE Floats at_most(Floats value, Floats bound) { return select(value > bound, bound, value); }
WK_INLINE Floats at_least(Floats value, Floats bound) { return select(value < bound, bound, value); }
#endif

// ---- rows ----

WK_INLINE int64_t row_offset(const Rows &rows, int64_t row) {
  return row / rows.inner * rows.outer_stride + row % rows.inner * rows.inner_stride;
}
template <class T>
WK_INLINE T *row_at(const Rows &rows, int64_t row) {
  return reinterpret_cast<T *>(rows.data) + row_offset(rows, row);
}

// Calls step(i, Whole) for each full vector of a row and step(i, Part) for what is left.
template <class Step>
WK_INLINE void for_each_vector(int64_t width, const Step &step) {
  int64_t i = 0;
  for (; i + kLanes <= width; i += kLanes) step(i, Whole{});
  if (i < width) step(i, Part{width - i});
}

// Sum of term(i, extent) over a row. Four running sums hide the latency of addition and shorten the chain of roundings.
template <class Term>
WK_INLINE float sum_over(int64_t width, const Term &term) {
  Floats total[4] = {};
  int64_t i = 0;
  for (; i + 4 * kLanes <= width; i += 4 * kLanes) {
    for (int k = 0; k < 4; ++k) total[k] += term(i + k * kLanes, Whole{});
  }
  for (; i + kLanes <= width; i += kLanes) total[0] += term(i, Whole{});
  if (i < width) total[1] += term(i, Part{width - i});
  return sum((total[0] + total[1]) + (total[2] + total[3]));
}

// Calls body with a value of the element type that `dtype` names.
template <class Body>
WK_INLINE void with_dtype(int32_t dtype, const Body &body) {
  switch (dtype) {
    case WK_FLOAT32: return body(float{});
    case WK_BFLOAT16: return body(bf16{});
    default: return body(fp16{});
  }
}

}  // namespace WK_ISA
}  // namespace wk
