// SPDX-License-Identifier: Apache-2.0
#pragma once
#include "common/isa.h"
#include "common/tensor.h"

namespace wk {

constexpr int64_t kTileKeys = 256;   // whose probabilities are made at once
constexpr int64_t kBlockRows = 64;   // queries of a piece of work
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
inline int64_t scratch_floats(int64_t head_width) { return 2 * kBlockRows * head_width + 2 * kMaxTileRows * kTileKeys; }

struct AttentionKernels {
  bool multiplies_bf16;
  // Packs the visible keys and values of one tile of a head of all B * N.
  void (*pack)(const AttentionForward &call, int64_t head, int64_t tile, const PackedHead &packed);
  // Queries [begin, end), at most kBlockRows.
  void (*forward)(const AttentionForward &call, int64_t head, int64_t begin, int64_t end, const PackedHead &packed,
                  const AttentionScratch &scratch);
};

WK_DECLARE_KERNELS(AttentionKernels, attention_kernels)

// ---- backward ----

constexpr int64_t kGradientKeys = 128;  // whose gradients are summed at once

struct AttentionBackward {
  AttentionForward forward;
  Heads grad_q, grad_k, grad_v;
  Heads grad_out;         // data null: none
  const float *grad_lse;  // [B, N, L]; null: none
};

// One head's queries and gradients in words, block by block of kBlockRows: as rows and as lines (product.h).
struct PackedQueries {
  float *q_rows, *q_lines, *grad_rows, *grad_lines;
  float *lse, *delta;  // the log-sum-exp to base 2; sum(grad_out * out) - grad_lse
};

// Memory of one thread.
struct GradientScratch {
  float *keys, *values, *key_lines;      // [kGradientKeys][H] in words; the first two transposed
  float *grad_k, *grad_v;                // [kGradientKeys][H], sums so far
  float *scores, *grads;                 // [kBlockRows][kGradientKeys]
  float *weights, *grad_scores, *pairs;  // the same in words; weights and pairs have words of neighbouring rows
};
inline int64_t gradient_scratch_floats(int64_t head_width) { return 5 * kGradientKeys * (head_width + kBlockRows); }

struct AttentionBackwardKernels {
  // Queries [begin, end), at most kBlockRows.
  void (*pack)(const AttentionBackward &call, int64_t head, int64_t begin, int64_t end, const PackedQueries &packed);
  // Keys [begin, end), whole blocks of kGradientKeys: writes their gradients, and their share of those of all queries
  // to grad_q [L, rounded up to whole blocks][H].
  void (*backward)(const AttentionBackward &call, int64_t head, int64_t begin, int64_t end, const PackedQueries &packed,
                   float *grad_q, const GradientScratch &scratch);
  // Sums `num_parts` shares, `stride` floats apart, and writes them.
  void (*finish)(const AttentionBackward &call, int64_t head, int64_t begin, int64_t end, const float *grad_q,
                 int64_t num_parts, int64_t stride);
};

WK_DECLARE_KERNELS(AttentionBackwardKernels, attention_backward_kernels)

}  // namespace wk
