// SPDX-License-Identifier: Apache-2.0
#pragma once
#include "common/isa.h"
#include "common/tensor.h"

namespace wk {

struct RmsNormForward {
  Rows out, x;
  const float *weight;
  float eps;
};

struct RmsNormBackward {
  Rows grad_x;  // data null: not wanted
  Rows grad_out, x;
  const float *weight;
  float eps;
};

struct RmsNormKernels {
  void (*forward)(const RmsNormForward &call, int64_t begin, int64_t end);
  // Adds these rows' share to grad_weight[width], unless that is null.
  void (*backward)(const RmsNormBackward &call, int64_t begin, int64_t end, float *grad_weight);
};

WK_DECLARE_KERNELS(RmsNormKernels, rms_norm_kernels)

}  // namespace wk
