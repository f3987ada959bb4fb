// SPDX-License-Identifier: Apache-2.0
#pragma once
#include "common/isa.h"
#include "common/tensor.h"

namespace wk {

constexpr int64_t kTileKeys = 256;  // whose probabilities are made at once
constexpr int64_t kBlockRows = 64;  // queries of a piece of work
constexpr int64_t kMaxTileRows = 8;  // queries of a product at once

// [B, L, N, H], rows of H dense; strides in elements.
struct Heads {
  char *data;
  int64_t sample_stride, token_stride, head_stride;
  int32_t dtype;
};

struct AttentionForward {
  Heads q, k, v, out;
  float *lse;  // [B, N, L]
  int64_t num_heads, num_queries, num_keys, head_width;
  float scale;
  const void *k_lengths;  // null: all
  int32_t k_lengths_dtype;
};

WK_INLINE int64_t visible_keys(const AttentionForward &call, int64_t sample) {
  if (!call.k_lengths) return call.num_keys;
  if (call.k_lengths_dtype == WK_INT32) return static_cast<const int32_t *>(call.k_lengths)[sample];
  return static_cast<const int64_t *>(call.k_lengths)[sample];
}

// One head's keys and values in words, tile by tile of kTileKeys: keys transposed, values as lines (product.h).
struct PackedHead {
  float *keys, *values;
};

// Memory of one thread.
struct AttentionScratch {
  float *out;      // [kBlockRows][H], sums so far
  float *rows;     // [kBlockRows][H], q in words
  float *scores;   // [kMaxTileRows][kTileKeys]
  float *weights;  // [kMaxTileRows][kTileKeys], in words
};
inline int64_t scratch_floats(int64_t head_width) {
  return 2 * kBlockRows * head_width + 2 * kMaxTileRows * kTileKeys;
}

struct AttentionKernels {
  bool multiplies_bf16;
  // Packs the visible keys and values of one tile of a head of all B * N.
  void (*pack)(const AttentionForward &call, int64_t head, int64_t tile, const PackedHead &packed);
  // Queries [begin, end), at most kBlockRows.
  void (*forward)(const AttentionForward &call, int64_t head, int64_t begin, int64_t end, const PackedHead &packed,
                  const AttentionScratch &scratch);
};

WK_DECLARE_KERNELS(AttentionKernels, attention_kernels)

}  // namespace wk
