// SPDX-License-Identifier: Apache-2.0
#pragma once
#include "common/isa.h"
#include "common/tensor.h"

namespace wk {

// Tokens encoded at a time: their codes fill a cache line of each channel.
constexpr int64_t kTileTokens = 64;
// Channels turned at a time.
constexpr int64_t kGroup = 16;

struct QuantizeValues {
  Rows v;             // rows of N * H channels
  char *out;          // codes [B, N, H, P]
  float *out_scale;   // [B, N, num_blocks, H], num_blocks 1 unless has_blocks
  float *mean;        // [B, N, H]
  int64_t num_heads;  // N
  int64_t length;     // L
  int64_t positions;  // P
  // Tokens of one head encoded in one go, a multiple of kTileTokens: a block, if that has scales of its own.
  int64_t piece_tokens;
  int64_t num_pieces;  // of a sample and head
  int32_t code_dtype;
  bool has_blocks;
  bool is_smooth;
  bool is_permuted;
};

WK_INLINE int64_t padded_width(int64_t head_width) { return (head_width + kGroup - 1) / kGroup * kGroup; }
WK_INLINE int64_t tile_bytes(int64_t head_width) { return padded_width(head_width) * kTileTokens; }
// Floats that encoding a piece needs: a head's inverse scales, and a tile of codes.
WK_INLINE int64_t piece_floats(int64_t head_width) { return padded_width(head_width) + tile_bytes(head_width) / 4; }

struct QuantizeValuesKernels {
  // Tokens [begin, end) of all B * L, of one sample: each channel's largest size into part[N * H]; if is_smooth instead
  // its sum, least and largest value into part[3, N * H].
  void (*measure)(const QuantizeValues &call, int64_t begin, int64_t end, float *part);
  // Means of a sample and, unless has_blocks, its scales, from its parts, `stride` floats apart.
  void (*finish)(const QuantizeValues &call, int64_t sample, const float *parts, int64_t num_parts, int64_t stride);
  // Pieces [begin, end) of all B * num_pieces * N; if has_blocks, their scales too.
  void (*encode)(const QuantizeValues &call, int64_t begin, int64_t end, float *memory);
};

WK_DECLARE_KERNELS(QuantizeValuesKernels, quantize_values_kernels)

}  // namespace wk
