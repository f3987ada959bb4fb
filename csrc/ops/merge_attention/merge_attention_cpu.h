// SPDX-License-Identifier: Apache-2.0
#pragma once
#include "common/isa.h"
#include "common/tensor.h"

namespace wk {

// Rows of [B, L, N, H] lie in the order b, l, n; log-sum-exps [B, N, L] are contiguous.
struct MergeAttentionForward {
  Rows out, out_a, out_b;
  float *lse;
  const float *lse_a, *lse_b;
  int64_t length, num_heads;  // L, N
};

struct MergeAttentionBackward {
  Rows grad_out_a, grad_out_b;  // data null: not wanted
  float *grad_lse_a, *grad_lse_b;
  Rows grad_out;          // data null: zeros
  const float *grad_lse;  // null: zeros
  Rows out_a, out_b;
  const float *lse_a, *lse_b;
  int64_t length, num_heads;
};

struct MergeAttentionKernels {
  // Tokens [begin, end) of all B * L, with all their heads.
  void (*forward)(const MergeAttentionForward &call, int64_t begin, int64_t end);
  void (*backward)(const MergeAttentionBackward &call, int64_t begin, int64_t end);
};

WK_DECLARE_KERNELS(MergeAttentionKernels, merge_attention_kernels)

}  // namespace wk
