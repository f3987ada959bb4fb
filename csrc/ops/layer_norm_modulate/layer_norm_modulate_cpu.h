// SPDX-License-Identifier: Apache-2.0
#pragma once
#include "common/isa.h"
#include "common/tensor.h"

namespace wk {

// What both directions read. Absent tensors arrive as a row of their neutral value: scale and bias 0, weight 1.
struct LayerNormModulateInputs {
  Rows x;
  Rows scale;  // fp32, rows b * R + r
  const float *weight;
  const float *bias;
  RowIndex index;
  int64_t length;  // L
  float eps;
};

struct LayerNormModulateForward {
  LayerNormModulateInputs in;
  Rows shift;
  Rows out;
};

struct LayerNormModulate8bit {
  LayerNormModulateInputs in;
  Rows shift;
  Rows out;  // codes
  float *out_scale;
};

struct LayerNormModulateBackward {
  LayerNormModulateInputs in;
  Rows grad_out;
  Rows grad_x;  // data null: not wanted
};

// Partial sums over tokens; a null pair is not wanted.
struct LayerNormModulateSums {
  float *scale = nullptr;  // [R, D]
  float *shift = nullptr;
  float *weight = nullptr;  // [D]
  float *bias = nullptr;
};

struct LayerNormModulateKernels {
  // Tokens [begin, end) of all B * L.
  void (*forward)(const LayerNormModulateForward &call, int64_t begin, int64_t end);
  // The same with codes and scales for a result; `row` is memory for D floats.
  void (*forward_8bit)(const LayerNormModulate8bit &call, int64_t begin, int64_t end, float *row);
  // Tokens [begin, end) of one sample; adds their share to the sums. `row` is memory for D floats.
  void (*backward)(const LayerNormModulateBackward &call, int64_t sample, int64_t begin, int64_t end,
                   const LayerNormModulateSums &sums, float *row);
};

WK_DECLARE_KERNELS(LayerNormModulateKernels, layer_norm_modulate_kernels)

}  // namespace wk
