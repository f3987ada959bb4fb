// SPDX-License-Identifier: Apache-2.0
#pragma once
#include "common/isa.h"
#include "common/tensor.h"

namespace wk {

// One axis of the grid: for each position a row of 2 * pairs cosines (c0, c0, c1, c1, ...) and of sines
// (-s0, s0, -s1, s1, ...), so that a rotation is v * cosines + swap_pairs(v) * sines.
struct RopeAxis {
  const float *cosines;
  const float *sines;
  int64_t width;  // 2 * pairs
  int64_t extent;
};

struct RmsNormRopeInputs {
  Rows x;
  const float *weight;
  RopeAxis axes[3];  // t, y, x
  int64_t num_heads;
  int64_t length;  // L
  float eps;
};

struct RmsNormRopeForward {
  RmsNormRopeInputs in;
  Rows out;  // rows of N * H
};

struct RmsNormRopeBackward {
  RmsNormRopeInputs in;
  Rows grad_out;
  Rows grad_x;  // data null: not wanted
};

struct RmsNormRopeKernels {
  // Tokens [begin, end) of all B * L. `turns` is memory for 2 * H floats.
  void (*forward)(const RmsNormRopeForward &call, int64_t begin, int64_t end, float *turns);
  // Also adds their share to grad_weight[N * H], unless that is null. `row` is memory for N * H floats.
  void (*backward)(const RmsNormRopeBackward &call, int64_t begin, int64_t end, float *turns, float *row,
                   float *grad_weight);
};

WK_DECLARE_KERNELS(RmsNormRopeKernels, rms_norm_rope_kernels)

}  // namespace wk
