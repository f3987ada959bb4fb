// SPDX-License-Identifier: Apache-2.0
#include "common/memory.h"

#include <cmath>
#include <cstring>

#include "common/parallel.h"

#ifdef __linux__
#include <sys/mman.h>
#endif

namespace wk {
namespace {

constexpr size_t kAlignment = 64;
constexpr size_t kHugePage = size_t{2} << 20;

float from_bits(uint32_t bits) {
  float value;
  std::memcpy(&value, &bits, sizeof value);
  return value;
}

uint32_t to_bits(float value) {
  uint32_t bits;
  std::memcpy(&bits, &value, sizeof bits);
  return bits;
}

uint16_t round_to_bf16(float value) {
  if (std::isnan(value)) return 0x7fc0;
  const uint32_t bits = to_bits(value);
  return static_cast<uint16_t>((bits + 0x7fff + ((bits >> 16) & 1)) >> 16);
}

float from_fp16(uint16_t half) {
  const uint32_t sign = (half & 0x8000u) << 16;
  const uint32_t exponent = (half >> 10) & 0x1f;
  const uint32_t mantissa = half & 0x3ffu;
  if (exponent == 0) return from_bits(sign | to_bits(std::ldexp(static_cast<float>(mantissa), -24)));
  if (exponent == 31) return from_bits(sign | 0x7f800000u | (mantissa << 13));
  return from_bits(sign | ((exponent + 112) << 23) | (mantissa << 13));
}

uint16_t round_to_fp16(float value) {
  const uint16_t sign = static_cast<uint16_t>((to_bits(value) >> 16) & 0x8000u);
  if (std::isnan(value)) return sign | 0x7e00;
  const float size = std::fabs(value);
  if (size >= 65520.0f) return sign | 0x7c00;
  // nearbyint of the value in units of its last place rounds half to even, subnormals included.
  const int exponent = size < 6.103515625e-05f ? -14 : std::ilogb(size);
  const int units = static_cast<int>(std::nearbyint(std::ldexp(size, 10 - exponent)));
  return static_cast<uint16_t>(sign | (((exponent + 14) << 10) + units));
}

}  // namespace

wk_status FloatBuffer::allocate(const char *op, int64_t count) {
  const size_t bytes = static_cast<size_t>(count > 0 ? count : 1) * sizeof(float);
  const bool is_large = bytes >= 2 * kHugePage;
  void *memory = nullptr;
  if (posix_memalign(&memory, is_large ? kHugePage : kAlignment, bytes) != 0) {
    return fail(WK_ERROR_OUT_OF_MEMORY, "[%s] temporary memory must be available, %zu bytes were refused", op, bytes);
  }
#ifdef MADV_HUGEPAGE
  if (is_large) madvise(memory, bytes / kHugePage * kHugePage, MADV_HUGEPAGE);
#endif
  std::free(data_);
  data_ = static_cast<float *>(memory);
  return WK_OK;
}

wk_status FloatBuffer::allocate_filled(const char *op, int64_t count, float value) {
  WK_TRY(allocate(op, count));
  for (int64_t i = 0; i < count; ++i) data_[i] = value;
  return WK_OK;
}

wk_status FloatVector::read(const char *op, const char *name, const wk_tensor *tensor, int64_t width, float fallback) {
  if (!tensor) {
    WK_TRY(buffer_.allocate_filled(op, width, fallback));
    data_ = buffer_.data();
    return WK_OK;
  }
  WK_TRY(check_floating(op, name, tensor));
  WK_TRY(check_shape(op, name, *tensor, 1, &width));
  if (tensor->dtype == WK_FLOAT32 && (tensor->stride[0] == 1 || width <= 1)) {
    data_ = static_cast<const float *>(tensor->data);
    return WK_OK;
  }
  WK_TRY(buffer_.allocate(op, width));
  for (int64_t i = 0; i < width; ++i) {
    buffer_.data()[i] = read_float(tensor->data, tensor->dtype, i * tensor->stride[0]);
  }
  data_ = buffer_.data();
  return WK_OK;
}

wk_status FloatTable::read(const char *op, const char *name, const wk_tensor *tensor, int64_t batch, int64_t num_rows,
                           int64_t width, float fallback) {
  if (!tensor) {
    WK_TRY(buffer_.allocate_filled(op, width, fallback));
    rows_.data = reinterpret_cast<char *>(buffer_.data());
    rows_.count = batch * num_rows;
    rows_.width = width;
    rows_.dtype = WK_FLOAT32;
    return WK_OK;
  }
  WK_TRY(check_floating(op, name, tensor));
  const int64_t shape[3] = {batch, num_rows, width};
  WK_TRY(check_shape(op, name, *tensor, 3, shape));
  if (tensor->dtype == WK_FLOAT32) return fold_rows(op, name, *tensor, &rows_);

  WK_TRY(buffer_.allocate(op, batch * num_rows * width));
  float *out = buffer_.data();
  for (int64_t b = 0; b < batch; ++b) {
    for (int64_t r = 0; r < num_rows; ++r) {
      const int64_t start = b * tensor->stride[0] + r * tensor->stride[1];
      for (int64_t d = 0; d < width; ++d) {
        *out++ = read_float(tensor->data, tensor->dtype, start + d * tensor->stride[2]);
      }
    }
  }
  const wk_tensor copy = wk_contiguous(buffer_.data(), WK_FLOAT32, 3, shape);
  return fold_rows(op, name, copy, &rows_);
}

void prefer_huge_pages(const wk_tensor *result) {
#ifdef MADV_HUGEPAGE
  if (!result) return;
  const int64_t count = element_count(*result);
  int64_t reach = 1;  // elements between the first and the last, both included
  for (int32_t d = 0; d < result->ndim; ++d) reach += (result->shape[d] - 1) * result->stride[d];
  const int64_t bytes = count * dtype_bytes(result->dtype);
  if (reach != count || bytes < static_cast<int64_t>(2 * kHugePage)) return;
  const uintptr_t start = reinterpret_cast<uintptr_t>(result->data);
  const uintptr_t begin = (start + kHugePage - 1) / kHugePage * kHugePage;
  const uintptr_t end = (start + static_cast<uintptr_t>(bytes)) / kHugePage * kHugePage;
  madvise(reinterpret_cast<void *>(begin), end - begin, MADV_HUGEPAGE);
#else
  (void)result;
#endif
}

float read_float(const void *data, int32_t dtype, int64_t at) {
  switch (dtype) {
    case WK_BFLOAT16: return from_bits(uint32_t{static_cast<const uint16_t *>(data)[at]} << 16);
    case WK_FLOAT16: return from_fp16(static_cast<const uint16_t *>(data)[at]);
    default: return static_cast<const float *>(data)[at];
  }
}

void write_float(void *data, int32_t dtype, int64_t at, float value) {
  switch (dtype) {
    case WK_BFLOAT16: static_cast<uint16_t *>(data)[at] = round_to_bf16(value); break;
    case WK_FLOAT16: static_cast<uint16_t *>(data)[at] = round_to_fp16(value); break;
    default: static_cast<float *>(data)[at] = value;
  }
}

namespace {

void sum_in_order(float *partials, int64_t parts, int64_t stride, int64_t width, const wk_tensor &out, int64_t offset) {
  for (int64_t p = 1; p < parts; ++p) {
    for (int64_t i = 0; i < width; ++i) partials[i] += partials[p * stride + i];
  }
  const int64_t step = out.stride[out.ndim - 1];
  for (int64_t i = 0; i < width; ++i) {
    write_float(out.data, out.dtype, offset + i * step, parts > 0 ? partials[i] : 0.0f);
  }
}

}  // namespace

void sum_vectors(float *partials, int64_t parts, int64_t stride, const wk_tensor &out) {
  sum_in_order(partials, parts, stride, out.shape[0], out, 0);
}

void sum_tables(float *partials, int64_t parts, int64_t stride, const wk_tensor &out) {
  const int64_t num_rows = out.shape[1], width = out.shape[2];
  parallel_for(out.shape[0] * num_rows, rows_per_piece(width * (parts + 1)), [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const int64_t sample = i / num_rows, row = i % num_rows;
      float *first = partials + sample * parts * stride + row * width;
      sum_in_order(first, parts, stride, width, out, sample * out.stride[0] + row * out.stride[1]);
    }
  });
}

}  // namespace wk
