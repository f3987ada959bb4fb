// SPDX-License-Identifier: Apache-2.0
#pragma once
#include "common/isa.h"
#include "common/layer_norm.h"

namespace wk {

struct GateResidualLayerNormModulateForward {
  Rows x, y;
  Rows gate;             // as the tables of `norm`; ones where there is none
  LayerNormInputs norm;  // its x is the sum, which the call writes
  Rows out;              // codes in forward_8bit
  float *out_scale;      // of codes only
};

struct GateResidualLayerNormModulateBackward {
  Rows grad_x, grad_y;      // data null: not wanted
  Rows grad_sum, grad_out;  // data null: zero
  Rows y, gate;
  LayerNormInputs norm;  // its x is the sum
};

// Sums over tokens; null: not wanted.
struct GateResidualLayerNormModulateSums {
  LayerNormSums norm;
  float *gate;  // [R, D]
};

struct GateResidualLayerNormModulateKernels {
  // Tokens [begin, end) of all B * L.
  void (*forward)(const GateResidualLayerNormModulateForward &call, int64_t begin, int64_t end);
  // The same with codes and scales for a result; `row` is memory for D floats.
  void (*forward_8bit)(const GateResidualLayerNormModulateForward &call, int64_t begin, int64_t end, float *row);
  // Tokens [begin, end) of one sample; adds their share to the sums. `row` is memory for D floats.
  void (*backward)(const GateResidualLayerNormModulateBackward &call, int64_t sample, int64_t begin, int64_t end,
                   const GateResidualLayerNormModulateSums &sums, float *row);
};

WK_DECLARE_KERNELS(GateResidualLayerNormModulateKernels, gate_residual_layer_norm_modulate_kernels)

}  // namespace wk
