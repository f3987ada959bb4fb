// SPDX-License-Identifier: Apache-2.0
// Host side of a CUDA launch: the right device, and the runtime's complaints as a status.
#pragma once
#include <cuda_runtime.h>

#include "common/tensor.h"

namespace wk {

inline wk_status cuda_status(const char *op, cudaError_t error) {
  if (error == cudaSuccess) return WK_OK;
  return fail(WK_ERROR_CUDA, "[%s] CUDA must accept the launch, it said: %s", op, cudaGetErrorString(error));
}

// Makes a tensor's device current for one scope: a stream can only be launched on from its own device.
class DeviceScope {
 public:
  explicit DeviceScope(int32_t device) {
    error_ = cudaGetDevice(&before_);
    if (error_ == cudaSuccess && before_ != device) error_ = cudaSetDevice(device);
  }
  DeviceScope(const DeviceScope &) = delete;
  DeviceScope &operator=(const DeviceScope &) = delete;
  ~DeviceScope() { cudaSetDevice(before_); }

  cudaError_t error() const { return error_; }

 private:
  int before_ = 0;
  cudaError_t error_ = cudaSuccess;
};

// Whether every row starts on 16 bytes and is a whole number of 16-byte packs.
inline bool is_packable(const Rows &rows) {
  const int64_t per_pack = 16 / dtype_bytes(rows.dtype);
  return reinterpret_cast<uintptr_t>(rows.data) % 16 == 0 && rows.width % per_pack == 0 &&
         rows.inner_stride % per_pack == 0 && rows.outer_stride % per_pack == 0;
}

}  // namespace wk
