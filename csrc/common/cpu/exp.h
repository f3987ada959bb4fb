// SPDX-License-Identifier: Apache-2.0
// 2^x, and the activation made of it, no more exact than the type of the result needs.
#pragma once
#include "common/cpu/vec.h"

namespace wk {
namespace WK_ISA {

// The polynomial of 2^x that a result of this type asks for: its error is at most 7.5e-5, 2.6e-6 or 7.5e-8 of the value
// (degrees 3, 4 and 5).
constexpr int exp_degree(bf16) { return 3; }
constexpr int exp_degree(fp16) { return 4; }
constexpr int exp_degree(float) { return 5; }

// Coefficients with the least largest relative error (Remez), constant first.
#if WK_X86_INTRINSICS && defined(__AVX512F__)
constexpr float kPower3[] = {0.999925219f, 0.69583354f, 0.226067155f, 0.0780245226f};  // on [0, 1]
constexpr float kPower4[] = {1.00000259f, 0.693003834f, 0.241442757f, 0.0520114606f, 0.0135341679f};
constexpr float kPower5[] = {0.999999925f, 0.693153073f, 0.240153617f, 0.0558263181f, 0.00898934009f, 0.00187757668f};
#else
constexpr float kPower3[] = {0.999928074f, 0.693260985f, 0.242611122f, 0.0551716691f};  // on [-0.5, 0.5]
constexpr float kPower4[] = {0.999999261f, 0.693121815f, 0.240247448f, 0.0559178603f, 0.00957010191f};
constexpr float kPower5[] = {1.00000007f, 0.693146967f, 0.240221197f, 0.0555071327f, 0.00967554133f, 0.0013276472f};
#endif

template <int kDegree>
WK_INLINE Floats power_series(Floats x) {
  const float *coefficients = kDegree == 3 ? kPower3 : kDegree == 4 ? kPower4 : kPower5;
  Floats series = splat(coefficients[kDegree]);
  for (int i = kDegree - 1; i >= 0; --i) series = series * x + splat(coefficients[i]);
  return series;
}

// 2^x. With AVX-512 for every x: 0 and infinity where they belong. Otherwise of x moved into [-126, 126]. NaN stays.
#if WK_X86_INTRINSICS && defined(__AVX512F__)
template <int kDegree>
WK_INLINE Floats power_of_2(Floats x) {
  // x - floor(x), and 0 for an infinity.
  const Floats rest = (Floats)_mm512_maskz_reduce_ps(0xffff, (__m512)x, 1);
  return (Floats)_mm512_maskz_scalef_ps(0xffff, (__m512)power_series<kDegree>(rest), (__m512)x);
}
#else
template <int kDegree>
WK_INLINE Floats power_of_2(Floats x) {
  x = at_most(at_least(x, splat(-126.0f)), splat(126.0f));
  // Adding 1.5 * 2^23 rounds to an integer and leaves it in the low mantissa bits, from where it moves into the
  // exponent's place.
  const Floats magic = splat(12582912.0f), shifted = x + magic;
  return (Floats)((Words)power_series<kDegree>(x - (shifted - magic)) + ((Words)shifted << 23));
}
#endif

// 1 / (1 + e^-x): as exact as float32 arithmetic on x * log2(e) lets it be and `T` needs; 1e-6 of the result at x = -10
// for float. 0 for minus infinity, so that minus infinity times it is NaN as IEEE says. NaN stays NaN.
template <class T>
WK_INLINE Floats sigmoid(Floats x) {
  const Floats odds = splat(1.0f) + power_of_2<exp_degree(T{})>(x * splat(-1.44269504f));
#if WK_X86_INTRINSICS && defined(__AVX512F__)
  // 14 bits, 0 for infinity. A step of Newton's makes 23 of them, where it does not multiply 0 with infinity.
  const Floats estimate = (Floats)_mm512_maskz_rcp14_ps(0xffff, (__m512)odds);
  if (sizeof(T) == 2) return estimate;
  const __mmask16 is_small = _mm512_cmp_ps_mask((__m512)odds, (__m512)splat(0x1p126f), _CMP_NGE_UQ);
  return (Floats)_mm512_maskz_mul_ps(is_small, (__m512)estimate, (__m512)(splat(2.0f) - odds * estimate));
#else
  return select(x < splat(-87.0f), zeros(), splat(1.0f) / odds);
#endif
}

}  // namespace WK_ISA
}  // namespace wk
