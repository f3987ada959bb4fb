// SPDX-License-Identifier: Apache-2.0
#pragma once
#include "common/cpu/vec.h"
#include "ops/rms_norm_rope/rms_norm_rope_cpu.h"

namespace wk {
namespace WK_ISA {

// Fills turns[0, H) with a token's cosines and turns[H, 2H) with its sines. Past the grid: no rotation, and false.
inline bool load_turns(const RmsNormRopeInputs &in, int64_t token, float *turns) {
  const int64_t head_width = in.x.width / in.num_heads;
  const int64_t rows = in.axes[1].extent, columns = in.axes[2].extent;
  if (token >= in.axes[0].extent * rows * columns) return false;
  const int64_t position[3] = {token / (rows * columns), token / columns % rows, token % columns};
  float *cosines = turns, *sines = turns + head_width;
  for (int k = 0; k < 3; ++k) {
    const RopeAxis &axis = in.axes[k];
    const size_t bytes = static_cast<size_t>(axis.width) * sizeof(float);
    __builtin_memcpy(cosines, axis.cosines + position[k] * axis.width, bytes);
    __builtin_memcpy(sines, axis.sines + position[k] * axis.width, bytes);
    cosines += axis.width;
    sines += axis.width;
  }
  return true;
}

}  // namespace WK_ISA
}  // namespace wk
