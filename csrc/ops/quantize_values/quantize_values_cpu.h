// SPDX-License-Identifier: Apache-2.0
#pragma once
#include "common/isa.h"
#include "common/tensor.h"

namespace wk {

// Tokens encoded at a time: their codes fill a cache line of each channel.
constexpr int64_t kTileTokens = 64;
// Channels turned at a time, and those encoded before they are: as many lines leave at once, and a core goes on while
// they wait for memory (8192 x 1536 bf16, scales for 128 tokens, two cores: 1.38 ms with 128, 1.22 with 64).
constexpr int64_t kGroup = 16, kStrip = 64;

struct QuantizeValues {
  Rows v;                    // rows of N * H channels
  char *out;                 // codes [B, N, H, P]
  float *out_scale;          // [B, N, num_scales, H]
  float *mean;               // [B, N, H]
  int64_t num_heads;         // N
  int64_t length;            // L
  int64_t positions;         // P
  int64_t tokens_per_scale;  // P where there is but one
  int64_t num_scales;
  int64_t piece_tokens;  // of one head encoded in one go, a multiple of kTileTokens
  int64_t num_pieces;    // of a sample and head
  int32_t code_dtype;
  bool is_smooth;
  bool is_permuted;
  bool finds_scales;  // while encoding: pieces are blocks, and need nothing of the tokens outside
  bool is_aligned;    // out starts on a cache line
};

// What was measured of parts of a sample's tokens.
struct ValueParts {
  const float *data;
  int64_t count;
  int64_t per_scale;
  int64_t stride;  // floats from part to part
};

struct QuantizeValuesKernels {
  // Tokens [begin, end) of all B * L, of one sample: each channel's largest size into part[N * H]; if is_smooth instead
  // its sum, least and largest value into part[3, N * H].
  void (*measure)(const QuantizeValues &call, int64_t begin, int64_t end, float *part);
  // Mean and scales of head `index` of all B * N, from the parts of its sample.
  void (*finish)(const QuantizeValues &call, int64_t index, const ValueParts &parts);
  // Pieces [begin, end) of all B * num_pieces * N.
  void (*encode)(const QuantizeValues &call, int64_t begin, int64_t end);
};

WK_DECLARE_KERNELS(QuantizeValuesKernels, quantize_values_kernels)

}  // namespace wk
