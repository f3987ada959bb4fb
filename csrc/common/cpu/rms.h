// SPDX-License-Identifier: Apache-2.0
#pragma once
#include "common/cpu/vec.h"

namespace wk {
namespace WK_ISA {

// 1 / sqrt(mean(x^2) + eps) of one row.
template <class T, class Next = NothingAhead>
float reciprocal_rms(const T *x, int64_t width, float eps, const Next &next = {}, int pass = 0) {
  const float sum_of_squares = sum_over(width, [&](int64_t i, auto extent) {
    next.ask(pass, i);
    const Floats value = load(x + i, extent);
    return value * value;
  });
  return 1.0f / root(sum_of_squares / static_cast<float>(width) + eps);
}

}  // namespace WK_ISA
}  // namespace wk
