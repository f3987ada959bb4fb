// SPDX-License-Identifier: Apache-2.0
#pragma once
#include "common/isa.h"
#include "common/packed.h"
#include "common/tensor.h"

namespace wk {

// Keys whose probabilities share a maximum, and whose products with v are summed in integers. v has a scale for each
// tile at the finest, so a tile is as short as they ask for.
constexpr int64_t kMaxTile = 256, kMinTile = 128;
constexpr int64_t kBlockRows = 64;  // queries of a piece of work

// A tensor with a scale for each block of tokens.
struct Quantised {
  const int8_t *codes;
  const float *scales, *mean;
  int64_t num_blocks, tokens_per_scale;
};

// What was made of one head's keys and values, tile by tile: packed.h has the layout.
struct PackedHead {
  int8_t *keys;       // [tiles][tile / 16][H / 4][16][4]
  int8_t *values;     // [tiles][H / 16][tile / 4][16][4]
  int32_t *offsets;   // [tiles * tile]: what the products add to the sums of each key
  float *key_scales;  // [tiles * tile], with the sign of `scale`
};

struct Attention8bit {
  Quantised q, k, v;  // [B, N, L, H], [B, N, S, H], [B, N, H, P]
  int64_t num_heads, num_queries, num_keys, head_width, positions;
  int64_t tile, num_tiles;  // of all S keys
  float scale;
  const void *k_lengths;  // null: all
  int32_t k_lengths_dtype;
  Rows out;        // rows of H: [B, L, N]
  float *lse;      // [B, N, L]
  Rows prior_out;  // data null: none
  const float *prior_lse;
};

WK_INLINE int64_t visible_keys(const Attention8bit &call, int64_t sample) {
  if (!call.k_lengths) return call.num_keys;
  if (call.k_lengths_dtype == WK_INT32) return static_cast<const int32_t *>(call.k_lengths)[sample];
  return static_cast<const int64_t *>(call.k_lengths)[sample];
}

// Memory of one thread, for kBlockRows queries.
struct Attention8bitScratch {
  float *out;         // [rows][H], sums so far
  float *powers;      // [rows at once][kMaxTile], integers first
  int32_t *products;  // [rows at once][H]
  uint8_t *rows;      // [kBlockRows][H], codes of q
  uint8_t *weights;   // [rows at once][kMaxTile], codes
};
constexpr int64_t kMaxRowsAtOnce = 8;
inline int64_t scratch_floats(int64_t head_width) {
  return (kBlockRows + kMaxRowsAtOnce) * head_width + kMaxRowsAtOnce * (kMaxTile + kMaxTile / 4) +
         kBlockRows * head_width / 4;
}

struct Attention8bitKernels {
  // Packs one tile of the head's keys and values.
  void (*pack)(const Attention8bit &call, int64_t head, int64_t tile, const PackedHead &packed);
  // Queries [begin, end) of a head of all B * N, at most kBlockRows.
  void (*forward)(const Attention8bit &call, int64_t head, int64_t begin, int64_t end, const PackedHead &packed,
                  const Attention8bitScratch &scratch);
};

WK_DECLARE_KERNELS(Attention8bitKernels, attention_8bit_kernels)

}  // namespace wk
