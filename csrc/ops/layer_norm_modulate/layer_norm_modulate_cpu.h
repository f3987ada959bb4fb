// SPDX-License-Identifier: Apache-2.0
#pragma once
#include "common/isa.h"
#include "common/layer_norm.h"

namespace wk {

struct LayerNormModulateForward {
  LayerNormInputs in;
  Rows out;
};

struct LayerNormModulate8bit {
  LayerNormInputs in;
  Rows out;  // codes
  float *out_scale;
};

struct LayerNormModulateBackward {
  LayerNormInputs in;
  Rows grad_out;
  Rows grad_x;  // data null: not wanted
};

struct LayerNormModulateKernels {
  // Tokens [begin, end) of all B * L.
  void (*forward)(const LayerNormModulateForward &call, int64_t begin, int64_t end);
  // The same with codes and scales for a result; `row` is memory for D floats.
  void (*forward_8bit)(const LayerNormModulate8bit &call, int64_t begin, int64_t end, float *row);
  // Tokens [begin, end) of one sample; adds their share to the sums. `row` is memory for D floats.
  void (*backward)(const LayerNormModulateBackward &call, int64_t sample, int64_t begin, int64_t end,
                   const LayerNormSums &sums, float *row);
};

WK_DECLARE_KERNELS(LayerNormModulateKernels, layer_norm_modulate_kernels)

}  // namespace wk
