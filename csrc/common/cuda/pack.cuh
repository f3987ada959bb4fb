// SPDX-License-Identifier: Apache-2.0
// Device words: 128-bit packs of elements, fp32 conversion, rows, and sums over a warp or a block.
#pragma once
#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include <type_traits>

#include "common/tensor.h"

namespace wk::device {

template <class T>
__device__ __forceinline__ float to_float(T value) {
  return static_cast<float>(value);
}
template <class T>
__device__ __forceinline__ T from_float(float value) {
  return static_cast<T>(value);
}
template <class T>
__device__ __forceinline__ float round_to(float value) {
  return to_float(from_float<T>(value));
}

// kCount elements that move in 128-bit steps; 64-bit ones where the whole is that small (four bf16 beside four fp32).
template <class T, int kCount>
struct alignas(kCount * sizeof(T) < 16 ? kCount * sizeof(T) : 16) Pack {
  T values[kCount];
};

template <class T>
constexpr int kPackSize = 16 / static_cast<int>(sizeof(T));

template <class T, int kCount>
__device__ __forceinline__ Pack<T, kCount> load_pack(const T *from) {
  using Step = std::conditional_t<sizeof(Pack<T, kCount>) % 16 == 0, uint4, uint2>;
  constexpr int kSteps = sizeof(Pack<T, kCount>) / sizeof(Step);
  static_assert(kSteps * sizeof(Step) == kCount * sizeof(T), "a pack is whole steps, without padding");
  Pack<T, kCount> pack;
#pragma unroll
  for (int i = 0; i < kSteps; ++i) reinterpret_cast<Step *>(&pack)[i] = reinterpret_cast<const Step *>(from)[i];
  return pack;
}

template <class T, int kCount>
__device__ __forceinline__ void store_pack(T *to, const Pack<T, kCount> &pack) {
  static_assert(sizeof(pack) == 16, "stores are one 128-bit step");
  *reinterpret_cast<uint4 *>(to) = *reinterpret_cast<const uint4 *>(&pack);
}

__device__ __forceinline__ int64_t row_offset(const Rows &rows, int64_t row) {
  return row / rows.inner * rows.outer_stride + row % rows.inner * rows.inner_stride;
}

__device__ __forceinline__ float warp_sum(float value) {
#pragma unroll
  for (int offset = 16; offset > 0; offset /= 2) value += __shfl_xor_sync(0xffffffffu, value, offset);
  return value;
}

// The sum over the kThreads threads that share a row; every one of them gets it.
template <int kThreads>
__device__ __forceinline__ float row_sum(float value) {
  value = warp_sum(value);
  if constexpr (kThreads > 32) {
    constexpr int kWarps = kThreads / 32;
    __shared__ float partial[kWarps];
    if (threadIdx.x % 32 == 0) partial[threadIdx.x / 32] = value;
    __syncthreads();
    value = 0.0f;
#pragma unroll
    for (int warp = 0; warp < kWarps; ++warp) value += partial[warp];
  }
  return value;
}

}  // namespace wk::device
