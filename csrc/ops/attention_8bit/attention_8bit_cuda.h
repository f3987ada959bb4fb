// SPDX-License-Identifier: Apache-2.0
#pragma once
#include "common/tensor.h"

namespace wk {

// The tensors of a call to wk_attention_8bit, which have passed its checks.
struct Attention8bitArguments {
  const wk_tensor *out, *lse;
  const wk_tensor *q, *q_scale, *k, *k_scale, *k_mean, *v, *v_scale, *v_mean, *k_lengths, *prior_out, *prior_lse;
  int64_t q_tokens_per_scale, k_tokens_per_scale, v_tokens_per_scale;
  double scale;
};

wk_status attention_8bit_forward_cuda(const Attention8bitArguments &call, void *stream);

}  // namespace wk
