// SPDX-License-Identifier: Apache-2.0
// The RMS norm over channels and the SiLU behind it, for kernels that have a pixel's channels side by side or in lanes.
#pragma once
#include "common/cpu/exp.h"

namespace wk {
namespace WK_ISA {

constexpr float kMinNorm = 1e-12f;

template <class T, bool kSilu>
WK_INLINE Floats activate(Floats value) {
  return kSilu ? value * sigmoid<T>(value) : value;
}

WK_INLINE Floats clamped_norm(Floats squares) {
  const Floats norm = root(squares);
  return select(norm < splat(kMinNorm), splat(kMinNorm), norm);  // NaN stays NaN
}

WK_INLINE Floats root_of_count(int64_t num_channels) { return splat(root(static_cast<float>(num_channels))); }

template <class T>
Floats row_norm(const T *x, int64_t num_channels) {
  return clamped_norm(splat(sum_over(num_channels, [&](int64_t i, auto extent) {
    const Floats value = load(x + i, extent);
    return value * value;
  })));
}

}  // namespace WK_ISA
}  // namespace wk
