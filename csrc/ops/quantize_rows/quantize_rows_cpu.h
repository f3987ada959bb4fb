// SPDX-License-Identifier: Apache-2.0
#pragma once
#include "common/isa.h"
#include "common/tensor.h"

namespace wk {

struct QuantizeRows {
  Rows out, x;
  float *out_scale;
};

struct QuantizeRowsKernels {
  void (*forward)(const QuantizeRows &call, int64_t begin, int64_t end);
};

WK_DECLARE_KERNELS(QuantizeRowsKernels, quantize_rows_kernels)

}  // namespace wk
