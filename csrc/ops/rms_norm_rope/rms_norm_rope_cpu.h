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
  // As forward; also adds their share to grad_weight[N * H], unless that is null. `row` is memory for N * H floats.
  void (*backward)(const RmsNormRopeBackward &call, int64_t begin, int64_t end, float *turns, float *row,
                   float *grad_weight);
};

WK_DECLARE_KERNELS(RmsNormRopeKernels, rms_norm_rope_kernels)

struct RmsNormRope8bit {
  RmsNormRopeInputs in;
  int8_t *out;        // [B, N, L, H]
  float *out_scale;   // [B, N, num_blocks]
  const float *mean;  // [B, N, H], taken off before the codes
  float *row_scales;  // [B * L], reciprocal rms of each token, found with the mean; null: there is none
  int64_t tokens_per_scale;
  int64_t num_blocks;        // of a sample
  int64_t tokens_per_piece;  // of work: whole blocks
};

constexpr int64_t kTokensOfSum = 4;

struct RmsNormRope8bitKernels {
  // Adds tokens [begin, end) of all B * L, of one sample and not rounded, to sums[N * H], and writes their row_scales.
  // `turns` is memory for 2 * kTokensOfSum * H floats.
  void (*sum)(const RmsNormRope8bit &call, int64_t begin, int64_t end, float *sums, float *turns);
  // Pieces [begin, end), a sample's following each other. `memory` is for 3 * H floats for each token of a piece.
  void (*encode)(const RmsNormRope8bit &call, int64_t begin, int64_t end, float *memory);
};

WK_DECLARE_KERNELS(RmsNormRope8bitKernels, rms_norm_rope_8bit_kernels)

}  // namespace wk
