// SPDX-License-Identifier: Apache-2.0
#pragma once
#include "common/isa.h"
#include "common/packed.h"
#include "common/tensor.h"

namespace wk {

struct Linear8bit {
  Rows x;                // int8
  const int8_t *weight;  // packed
  int64_t num_quads;     // ceil(K / 4)
  Rows out;              // floating, or codes with out_scale
  Rows residual;         // data null: none
  const float *x_scale, *weight_scale, *bias;
  const int32_t *offsets;  // what the products add to each column's sums
  float *out_scale;        // null: out is floating
  Rows gate;               // fp32, rows b * R + r; data null: a gate of 1
  RowIndex index;
  int64_t length;  // L
  bool apply_gelu;
};

// A block of x stays in the cache while the columns pass by; its sums by a few groups of columns wait for their end.
constexpr int64_t kTileRows = 8, kMaxBlockRows = 192, kBlockColumns = 192;
inline int64_t max_block_rows(int64_t row_bytes) {
  const int64_t fitting = (1 << 20) / (row_bytes > 0 ? row_bytes : 1) / kTileRows * kTileRows;
  return fitting > kMaxBlockRows ? kMaxBlockRows : fitting < kTileRows ? kTileRows : fitting;
}

struct Linear8bitScratch {
  int32_t *sums;  // rows * kBlockColumns
  float *values;  // rows * N where there are codes
  void *rows;     // rows * num_quads * 4 bytes
};

struct Linear8bitKernels {
  // What the instruction set's products add to the sums of the columns of groups [begin, end).
  void (*offsets)(const Linear8bit &call, int64_t begin, int64_t end, int32_t *result);
  // Rows [begin, end), at most max_block_rows, all columns.
  void (*forward)(const Linear8bit &call, int64_t begin, int64_t end, const Linear8bitScratch &scratch);
};

WK_DECLARE_KERNELS(Linear8bitKernels, linear_8bit_kernels)

}  // namespace wk
