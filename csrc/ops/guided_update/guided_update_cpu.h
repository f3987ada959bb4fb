// SPDX-License-Identifier: Apache-2.0
#pragma once
#include "common/isa.h"
#include "common/tensor.h"

namespace wk {

struct GuidedUpdate {
  float *result, *denoised, *start;  // start null without a base
  const void *positive, *negative;   // negative null: no guidance
  int32_t velocity_dtype;
  const float *latents, *base, *older, *newer;  // all but latents may be null
  float guidance_scale, sigma;
  float base_weights[4];  // of base, older, newer, denoised
  float weights[3];       // of start, newer, denoised
};

struct GuidedUpdateKernels {
  // Elements [begin, end).
  void (*forward)(const GuidedUpdate &call, int64_t begin, int64_t end);
};

WK_DECLARE_KERNELS(GuidedUpdateKernels, guided_update_kernels)

}  // namespace wk
