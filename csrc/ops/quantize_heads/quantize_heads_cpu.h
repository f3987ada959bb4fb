// SPDX-License-Identifier: Apache-2.0
#pragma once
#include "common/heads.h"
#include "common/isa.h"
#include "common/tensor.h"

namespace wk {

struct QuantizeHeads {
  const char *x;  // [B, L, N, H], the last dimension contiguous
  int64_t sample_stride;
  int64_t token_stride;
  int64_t head_stride;
  int64_t length;      // L
  int64_t num_heads;   // N
  int64_t head_width;  // H
  int32_t dtype;
  int8_t *out;        // [B, N, L, H]
  float *out_scale;   // [B, N, num_blocks]
  const float *mean;  // [B, N, H], or null where none is taken off
  int64_t tokens_per_scale;
  int64_t num_blocks;    // of a sample and head
  int64_t piece_blocks;  // of one head encoded in one go
  int64_t num_pieces;
};

struct QuantizeHeadsKernels {
  // Adds tokens [begin, end) of all B * L, of one sample, to sums[N * H].
  void (*sum)(const QuantizeHeads &call, int64_t begin, int64_t end, float *sums);
  // Tokens [begin, end) of all B * L, where fits_registers(H) and each has a scale of its own.
  void (*encode_tokens)(const QuantizeHeads &call, int64_t begin, int64_t end);
  // Pieces [begin, end) of all B * num_pieces * N.
  void (*encode_pieces)(const QuantizeHeads &call, int64_t begin, int64_t end);
};

WK_DECLARE_KERNELS(QuantizeHeadsKernels, quantize_heads_kernels)

}  // namespace wk
