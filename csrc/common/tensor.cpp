// SPDX-License-Identifier: Apache-2.0
#include "common/tensor.h"

#include <cstdio>

namespace wk {
namespace {

struct ShapeText {
  char text[160];
};

ShapeText shape_text(int32_t ndim, const int64_t *shape) {
  ShapeText result;
  size_t used = static_cast<size_t>(std::snprintf(result.text, sizeof result.text, "("));
  for (int32_t d = 0; d < ndim && used < sizeof result.text; ++d) {
    const char *separator = d + 1 < ndim ? ", " : (ndim == 1 ? "," : "");
    used += static_cast<size_t>(std::snprintf(result.text + used, sizeof result.text - used, "%lld%s",
                                              static_cast<long long>(shape[d]), separator));
  }
  if (used < sizeof result.text) std::snprintf(result.text + used, sizeof result.text - used, ")");
  return result;
}

ShapeText shape_text(const wk_tensor &tensor) { return shape_text(tensor.ndim, tensor.shape); }

}  // namespace

const char *dtype_name(int32_t dtype) {
  switch (dtype) {
    case WK_FLOAT32: return "float32";
    case WK_BFLOAT16: return "bfloat16";
    case WK_FLOAT16: return "float16";
    case WK_FLOAT64: return "float64";
    case WK_INT32: return "int32";
    case WK_INT64: return "int64";
    case WK_INT8: return "int8";
    case WK_FLOAT8_E4M3: return "float8_e4m3fn";
    default: return "an unknown dtype";
  }
}

int64_t dtype_bytes(int32_t dtype) {
  switch (dtype) {
    case WK_BFLOAT16:
    case WK_FLOAT16: return 2;
    case WK_FLOAT64:
    case WK_INT64: return 8;
    case WK_INT8:
    case WK_FLOAT8_E4M3: return 1;
    default: return 4;
  }
}

int64_t element_count(const wk_tensor &tensor) {
  int64_t count = 1;
  for (int32_t d = 0; d < tensor.ndim; ++d) count *= tensor.shape[d];
  return count;
}

bool is_activation_dtype(int32_t dtype) { return dtype == WK_FLOAT32 || dtype == WK_BFLOAT16 || dtype == WK_FLOAT16; }

bool is_codes_dtype(int32_t dtype) { return dtype == WK_INT8 || dtype == WK_FLOAT8_E4M3; }

namespace {

wk_status check_memory(const char *op, const char *name, const wk_tensor *tensor) {
  WK_REQUIRE(tensor, "[%s] %s must be given, got NULL", op, name);
  WK_REQUIRE(tensor->ndim >= 1 && tensor->ndim <= WK_MAX_DIMS, "[%s] %s must have 1 to %d dimensions, got %d", op, name,
             WK_MAX_DIMS, tensor->ndim);
  for (int32_t d = 0; d < tensor->ndim; ++d) {
    WK_REQUIRE(tensor->shape[d] >= 0, "[%s] %s must have no negative extent, got %s", op, name,
               shape_text(*tensor).text);
  }
  WK_REQUIRE(tensor->data || element_count(*tensor) == 0, "[%s] %s must have memory, got a null pointer", op, name);
  return WK_OK;
}

}  // namespace

wk_status check_floating(const char *op, const char *name, const wk_tensor *tensor) {
  WK_TRY(check_memory(op, name, tensor));
  WK_REQUIRE(is_activation_dtype(tensor->dtype), "[%s] %s must be float32, bfloat16 or float16, got %s", op, name,
             dtype_name(tensor->dtype));
  return WK_OK;
}

wk_status check_codes(const char *op, const char *name, const wk_tensor *tensor) {
  WK_TRY(check_memory(op, name, tensor));
  WK_REQUIRE(is_codes_dtype(tensor->dtype), "[%s] %s must be int8 or float8_e4m3fn, got %s", op, name,
             dtype_name(tensor->dtype));
  return WK_OK;
}

wk_status check_dense(const char *op, const char *name, const wk_tensor *tensor, int32_t dtype, int32_t ndim,
                      const int64_t *shape) {
  WK_REQUIRE(tensor, "[%s] %s must be given, got NULL", op, name);
  WK_REQUIRE(tensor->dtype == dtype, "[%s] %s must be %s, got %s", op, name, dtype_name(dtype),
             dtype_name(tensor->dtype));
  WK_TRY(check_shape(op, name, *tensor, ndim, shape));
  if (element_count(*tensor) == 0) return WK_OK;
  int64_t stride = 1;
  for (int32_t d = ndim - 1; d >= 0; --d) {
    WK_REQUIRE(tensor->shape[d] <= 1 || tensor->stride[d] == stride, "[%s] %s must be contiguous, got stride %lld", op,
               name, static_cast<long long>(tensor->stride[d]));
    stride *= tensor->shape[d];
  }
  WK_REQUIRE(tensor->data, "[%s] %s must have memory, got a null pointer", op, name);
  return WK_OK;
}

wk_status check_row_scales(const char *op, const char *name, const wk_tensor *scales, const wk_tensor &rows) {
  return check_dense(op, name, scales, WK_FLOAT32, rows.ndim - 1, rows.shape);
}

wk_status check_shape(const char *op, const char *name, const wk_tensor &tensor, int32_t ndim, const int64_t *shape) {
  bool matches = tensor.ndim == ndim;
  for (int32_t d = 0; matches && d < ndim; ++d) matches = tensor.shape[d] == shape[d];
  WK_REQUIRE(matches, "[%s] %s must have shape %s, got %s", op, name, shape_text(ndim, shape).text,
             shape_text(tensor).text);
  return WK_OK;
}

wk_status check_same_shape(const char *op, const char *name, const wk_tensor &tensor, const char *other_name,
                           const wk_tensor &other) {
  bool matches = tensor.ndim == other.ndim;
  for (int32_t d = 0; matches && d < other.ndim; ++d) matches = tensor.shape[d] == other.shape[d];
  WK_REQUIRE(matches, "[%s] %s must have the shape of %s %s, got %s", op, name, other_name, shape_text(other).text,
             shape_text(tensor).text);
  return WK_OK;
}

wk_status check_same_dtype(const char *op, const char *name, const wk_tensor &tensor, const char *other_name,
                           const wk_tensor &other) {
  WK_REQUIRE(tensor.dtype == other.dtype, "[%s] %s must have the dtype of %s %s, got %s", op, name, other_name,
             dtype_name(other.dtype), dtype_name(tensor.dtype));
  return WK_OK;
}

wk_status check_same_device(const char *op, const char *name, const wk_tensor &tensor, const char *other_name,
                            const wk_tensor &other) {
  WK_REQUIRE(tensor.device == WK_CPU || tensor.device == WK_CUDA,
             "[%s] %s must be on the CPU or on CUDA, got device %d", op, name, tensor.device);
  WK_REQUIRE(tensor.device == other.device && tensor.device_index == other.device_index,
             "[%s] %s must be on the device of %s", op, name, other_name);
  return WK_OK;
}

wk_status require_all_cpu(const char *op, std::initializer_list<const wk_tensor *> tensors) {
  for (const wk_tensor *tensor : tensors) {
    if (!tensor || tensor->device == WK_CPU) continue;
    return fail(WK_ERROR_UNSUPPORTED, "[%s] tensors must be on the CPU, this function has no CUDA kernel", op);
  }
  return WK_OK;
}

wk_status fold_rows(const char *op, const char *name, const wk_tensor &tensor, Rows *rows) {
  const int32_t last = tensor.ndim - 1;
  rows->data = static_cast<char *>(tensor.data);
  rows->dtype = tensor.dtype;
  rows->width = tensor.shape[last];
  rows->count = 1;
  for (int32_t d = 0; d < last; ++d) rows->count *= tensor.shape[d];
  if (rows->count == 0 || rows->width == 0) return WK_OK;
  WK_REQUIRE(rows->width == 1 || tensor.stride[last] == 1,
             "[%s] %s must have a contiguous last dimension, got stride %lld", op, name,
             static_cast<long long>(tensor.stride[last]));

  int64_t extent[2] = {1, 1};  // innermost first
  int64_t stride[2] = {0, 0};
  int32_t level = -1;
  for (int32_t d = last - 1; d >= 0; --d) {
    if (tensor.shape[d] == 1) continue;
    if (level >= 0 && tensor.stride[d] == stride[level] * extent[level]) {
      extent[level] *= tensor.shape[d];
      continue;
    }
    if (++level == 2) {
      return fail(WK_ERROR_UNSUPPORTED,
                  "[%s] %s must have leading dimensions that fold to two levels, its strides do not", op, name);
    }
    extent[level] = tensor.shape[d];
    stride[level] = tensor.stride[d];
  }
  rows->inner = extent[0];
  rows->inner_stride = stride[0];
  rows->outer_stride = stride[1];
  return WK_OK;
}

wk_status fold_heads(const char *op, const char *name, const wk_tensor &tensor, Rows *rows) {
  WK_REQUIRE(tensor.shape[2] <= 1 || tensor.stride[2] == tensor.shape[3], "[%s] %s must have contiguous heads", op,
             name);
  wk_tensor joined = tensor;
  joined.ndim = 3;
  joined.shape[2] = tensor.shape[2] * tensor.shape[3];
  joined.stride[2] = tensor.stride[3];
  return fold_rows(op, name, joined, rows);
}

wk_status fold_optional_rows(const char *op, const char *name, const wk_tensor *tensor, Rows *rows) {
  return tensor ? fold_rows(op, name, *tensor, rows) : WK_OK;
}

wk_status read_row_index(const char *op, const wk_tensor *index, int64_t batch, int64_t length, int64_t num_rows,
                         RowIndex *result) {
  result->num_rows = num_rows;
  if (!index) {
    WK_REQUIRE(num_rows == 1, "[%s] index must be given when there are %lld modulation rows, got NULL", op,
               static_cast<long long>(num_rows));
    return WK_OK;
  }
  WK_REQUIRE(index->dtype == WK_INT32 || index->dtype == WK_INT64, "[%s] index must be int32 or int64, got %s", op,
             dtype_name(index->dtype));
  const int64_t shape[2] = {batch, length};
  WK_TRY(check_shape(op, "index", *index, 2, shape));
  if (batch * length == 0) return WK_OK;
  WK_REQUIRE(index->data, "[%s] index must have memory, got a null pointer", op);
  result->data = index->data;
  result->dtype = index->dtype;
  result->sample_stride = index->stride[0];
  result->token_stride = index->stride[1];
  for (int64_t b = 0; b < batch; ++b) {
    for (int64_t l = 0; l < length; ++l) {
      const int64_t row = lookup(*result, b, l);
      WK_REQUIRE(row >= 0 && row < num_rows, "[%s] index must lie in [0, %lld), got %lld at (%lld, %lld)", op,
                 static_cast<long long>(num_rows), static_cast<long long>(row), static_cast<long long>(b),
                 static_cast<long long>(l));
    }
  }
  return WK_OK;
}

}  // namespace wk

extern "C" wk_tensor wk_contiguous(void *data, int32_t dtype, int32_t ndim, const int64_t *shape) {
  wk_tensor tensor = {};
  tensor.data = data;
  tensor.dtype = dtype;
  tensor.ndim = ndim;
  tensor.device = WK_CPU;
  int64_t stride = 1;
  for (int32_t d = (ndim < WK_MAX_DIMS ? ndim : WK_MAX_DIMS) - 1; d >= 0; --d) {
    tensor.shape[d] = shape[d];
    tensor.stride[d] = stride;
    stride *= shape[d];
  }
  return tensor;
}
