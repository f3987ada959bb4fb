// SPDX-License-Identifier: Apache-2.0
#pragma once
#include "common/isa.h"
#include "common/tensor.h"

namespace wk {

struct GateResidualForward {
  Rows out, x, y;
  Rows gate;  // fp32, rows b * R + r
  RowIndex index;
  int64_t length;  // L
};

struct GateResidualBackward {
  Rows grad_x;  // data null: not wanted
  Rows grad_y;
  Rows grad_out, y;
  Rows gate;
  RowIndex index;
  int64_t length;
};

struct GateResidualKernels {
  // Tokens [begin, end) of all B * L.
  void (*forward)(const GateResidualForward &call, int64_t begin, int64_t end);
  // Tokens [begin, end) of one sample; adds their share to grad_gate[R, D], unless that is null.
  void (*backward)(const GateResidualBackward &call, int64_t sample, int64_t begin, int64_t end, float *grad_gate);
};

WK_DECLARE_KERNELS(GateResidualKernels, gate_residual_kernels)

}  // namespace wk
