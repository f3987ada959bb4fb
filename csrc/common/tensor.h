// SPDX-License-Identifier: Apache-2.0
// Reading wk_tensor: argument checks, and the folded views that kernels walk over.
#pragma once
#include <initializer_list>

#include "common/status.h"

// For what both sides of the instruction-set border call: without a copy of its own, none can end up on the wrong side.
#define WK_INLINE inline __attribute__((always_inline))

namespace wk {

struct bf16 {
  uint16_t bits;
};
struct fp16 {
  uint16_t bits;
};
struct fp8 {  // e4m3, finite and NaN
  uint8_t bits;
};

const char *dtype_name(int32_t dtype);
int64_t dtype_bytes(int32_t dtype);
int64_t element_count(const wk_tensor &tensor);
bool is_activation_dtype(int32_t dtype);  // fp32, bf16, fp16
bool is_codes_dtype(int32_t dtype);       // int8, fp8

// Every check names the op and the argument, states the rule, and shows what came.
wk_status check_floating(const char *op, const char *name, const wk_tensor *tensor);
wk_status check_codes(const char *op, const char *name, const wk_tensor *tensor);
// A contiguous tensor of that dtype and shape.
wk_status check_dense(const char *op, const char *name, const wk_tensor *tensor, int32_t dtype, int32_t ndim,
                      const int64_t *shape);
// One contiguous fp32 number for each row of `rows`.
wk_status check_row_scales(const char *op, const char *name, const wk_tensor *scales, const wk_tensor &rows);
wk_status check_shape(const char *op, const char *name, const wk_tensor &tensor, int32_t ndim, const int64_t *shape);
wk_status check_same_shape(const char *op, const char *name, const wk_tensor &tensor, const char *other_name,
                           const wk_tensor &other);
wk_status check_same_dtype(const char *op, const char *name, const wk_tensor &tensor, const char *other_name,
                           const wk_tensor &other);
wk_status check_same_device(const char *op, const char *name, const wk_tensor &tensor, const char *other_name,
                            const wk_tensor &other);
// For functions that have no CUDA kernel. NULL entries are absent tensors.
wk_status require_all_cpu(const char *op, std::initializer_list<const wk_tensor *> tensors);

// Rows of a tensor whose last dimension has stride 1; the leading dimensions folded to at most two levels.
struct Rows {
  char *data = nullptr;
  int64_t count = 0;  // rows
  int64_t width = 0;
  int64_t inner = 1;         // rows per outer step
  int64_t outer_stride = 0;  // elements
  int64_t inner_stride = 0;
  int32_t dtype = 0;
};

// CPU results of so many bytes and more leave past the caches. (rms_norm of 1536 channels, then a reader, two cores of
// a Zen 4: 16 MiB 2.3 ms with plain stores, 1.9 so; 8 MiB the same; 4 MiB 0.51 and 0.53; 2.3 MiB 0.29 and 0.30.)
constexpr int64_t kStreamedBytes = int64_t{4} << 20;

wk_status fold_rows(const char *op, const char *name, const wk_tensor &tensor, Rows *rows);

// [B, L, N, H] as rows of N * H; the two last dimensions must be dense.
wk_status fold_heads(const char *op, const char *name, const wk_tensor &tensor, Rows *rows);

// As fold_rows, for an optional tensor: NULL leaves `rows->data` null.
wk_status fold_optional_rows(const char *op, const char *name, const wk_tensor *tensor, Rows *rows);

// Which modulation row a token reads: token r of B*L, its sample's table row, its index entry.
struct RowIndex {
  const void *data = nullptr;  // null: every token of a sample reads row 0
  int64_t sample_stride = 0;
  int64_t token_stride = 0;
  int32_t dtype = WK_INT32;
  int64_t num_rows = 1;  // R
};

// Checks shape [B, L], dtype, strides and that every entry lies in [0, num_rows).
wk_status read_row_index(const char *op, const wk_tensor *index, int64_t batch, int64_t length, int64_t num_rows,
                         RowIndex *result);

// Modulation row of token `token` of sample `sample`, without the sample's offset.
WK_INLINE int64_t lookup(const RowIndex &index, int64_t sample, int64_t token) {
  if (!index.data) return 0;
  const int64_t at = sample * index.sample_stride + token * index.token_stride;
  if (index.dtype == WK_INT32) return static_cast<const int32_t *>(index.data)[at];
  return static_cast<const int64_t *>(index.data)[at];
}

}  // namespace wk
