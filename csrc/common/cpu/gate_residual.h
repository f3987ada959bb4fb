// SPDX-License-Identifier: Apache-2.0
// x + y * gate, a vector at a time.
#pragma once
#include "common/cpu/vec.h"

namespace wk {
namespace WK_ISA {

template <class T, class Y, class Extent>
WK_INLINE Floats add_gated(const T *x, const Y *y, const float *gate, Extent extent) {
  return load(x, extent) + load(y, extent) * load(gate, extent);
}

// Where a token's gradients go; null: not wanted.
template <class T, class Y>
struct ResidualGradients {
  T *x;
  Y *y;
  float *gate;  // a sum over tokens
};

// Hands the gradient `grad` of the stream at i on to x, y and gate.
template <class T, class Y, class Extent>
WK_INLINE void pass_gradient(const ResidualGradients<T, Y> &to, int64_t i, Floats grad, const Y *y, const float *gate,
                             Extent extent) {
  if (to.x) store(to.x + i, grad, extent);
  if (to.y) store(to.y + i, grad * load(gate + i, extent), extent);
  if (to.gate) store(to.gate + i, load(to.gate + i, extent) + grad * load(y + i, extent), extent);
}

}  // namespace WK_ISA
}  // namespace wk
