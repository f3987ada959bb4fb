// SPDX-License-Identifier: Apache-2.0
// Temporary float memory of one call, and small tensors read as fp32.
#pragma once
#include <cstdlib>

#include "common/tensor.h"

namespace wk {

class FloatBuffer {
 public:
  FloatBuffer() = default;
  FloatBuffer(const FloatBuffer &) = delete;
  FloatBuffer &operator=(const FloatBuffer &) = delete;
  ~FloatBuffer() { std::free(data_); }

  wk_status allocate(const char *op, int64_t count);
  wk_status allocate_filled(const char *op, int64_t count, float value);
  float *data() const { return data_; }

 private:
  float *data_ = nullptr;
};

// fp32 values of a [width] vector; copies only if it has another dtype or stride. NULL yields `width` times `fallback`.
class FloatVector {
 public:
  wk_status read(const char *op, const char *name, const wk_tensor *tensor, int64_t width, float fallback = 0.0f);
  const float *data() const { return data_; }

 private:
  FloatBuffer buffer_;
  const float *data_ = nullptr;
};

// fp32 rows of a [B, R, D] tensor; copies only other dtypes. NULL yields one shared row of `fallback`.
class FloatTable {
 public:
  wk_status read(const char *op, const char *name, const wk_tensor *tensor, int64_t batch, int64_t num_rows,
                 int64_t width, float fallback = 0.0f);
  const Rows &rows() const { return rows_; }

 private:
  FloatBuffer buffer_;
  Rows rows_;
};

// Asks the system for huge pages under a large dense result. Memory fresh from the allocator has no pages yet, and
// taking 12,000 page faults costs more than any of these kernels (8192 x 1536 fp32, copy into new memory, two busy x86
// cores: 65 ms before, 13 ms after). Only a hint; does nothing where there are no huge pages.
void prefer_huge_pages(const wk_tensor *result);

// Element conversion for small tensors, where speed does not matter.
float read_float(const void *data, int32_t dtype, int64_t at);
void write_float(void *data, int32_t dtype, int64_t at, float value);

// Sums partial results in order and writes them; overwrites the first of each. No parts make zeros.
// out [D]: `parts` vectors, `stride` floats apart.
void sum_vectors(float *partials, int64_t parts, int64_t stride, const wk_tensor &out);
// out [B, R, D]: for each sample `parts` tables of R * D floats, `stride` floats apart, samples following each other.
void sum_tables(float *partials, int64_t parts, int64_t stride, const wk_tensor &out);

}  // namespace wk
