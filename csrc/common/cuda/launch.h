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

// For kernels that are compiled for sm_90a alone.
inline wk_status require_hopper(const char *op, int32_t device) {
  int major = 0, minor = 0;
  WK_TRY(cuda_status(op, cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, device)));
  WK_TRY(cuda_status(op, cudaDeviceGetAttribute(&minor, cudaDevAttrComputeCapabilityMinor, device)));
  if (major == 9 && minor == 0) return WK_OK;
  return fail(WK_ERROR_UNSUPPORTED, "[%s] the device must have compute capability 9.0, this one has %d.%d", op, major,
              minor);
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

inline bool is_packable_address(const void *data) { return reinterpret_cast<uintptr_t>(data) % 16 == 0; }

// Whether every row starts on 16 bytes and is a whole number of 16-byte packs.
inline bool is_packable(const Rows &rows) {
  const int64_t per_pack = 16 / dtype_bytes(rows.dtype);
  return is_packable_address(rows.data) && rows.width % per_pack == 0 && rows.inner_stride % per_pack == 0 &&
         rows.outer_stride % per_pack == 0;
}

}  // namespace wk
