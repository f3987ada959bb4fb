// SPDX-License-Identifier: Apache-2.0
#pragma once
#include "common/isa.h"
#include "common/tensor.h"

namespace wk {

// Tokens encoded at a time: their codes fill a cache line of each channel.
constexpr int64_t kTileTokens = 64;

// Bytes from row to row of a tile before it is turned: an odd number of cache lines, so that a column of it does not
// fall into few sets of the cache, and 15 bytes that a group of 16 channels may read past the last.
WK_INLINE int64_t tile_stride(int64_t width) { return ((width + 15 + 63) / 64 | 1) * 64; }

struct QuantizeValues {
  Rows v;             // rows of C = N * H channels
  char *out;          // codes [B, C, P]
  float *out_scale;   // [B, C]
  float *mean;        // [B, C]
  float *inverse;     // [B, C], 1 / scale
  int64_t length;     // L
  int64_t positions;  // P
  int32_t code_dtype;
  bool is_smooth;
  bool is_permuted;
};

struct QuantizeValuesKernels {
  // Tokens [begin, end) of all B * L: each channel's largest size into part[C]; if is_smooth instead its sum, least and
  // largest value into part[3, C].
  void (*measure)(const QuantizeValues &call, int64_t begin, int64_t end, float *part);
  // Scales, their inverses and means of a sample, from its parts, `stride` floats apart.
  void (*finish)(const QuantizeValues &call, int64_t sample, const float *parts, int64_t num_parts, int64_t stride);
  // Tiles [begin, end) of all B * P / kTileTokens. `memory` is for kTileTokens * tile_stride(C) bytes.
  void (*encode)(const QuantizeValues &call, int64_t begin, int64_t end, char *memory);
};

WK_DECLARE_KERNELS(QuantizeValuesKernels, quantize_values_kernels)

}  // namespace wk
