// SPDX-License-Identifier: Apache-2.0
// Each product of common/cuda/wgmma.cuh and each load of tma.cuh once: compiled and read, never run.
#include "common/cuda/layout.h"
#include "common/cuda/mbarrier.cuh"
#include "common/cuda/registers.cuh"
#include "common/cuda/tma.cuh"
#include "common/cuda/wgmma.cuh"

using namespace wk::device;

template <class T, class Multiply>
__device__ void product_kernel_body(T *out, const Multiply &multiply) {
  T result[64];
  wgmma_fence();
  multiply(result);
  wgmma_commit();
  wgmma_wait<0>();
  pin(result);
  for (int i = 0; i < 64; ++i) out[i * 128 + threadIdx.x] = result[i];
}

#define WK_PRODUCT(name, T)                                                                 \
  __global__ void __launch_bounds__(128) name##_ss_kernel(T *out, uint64_t a, uint64_t b) { \
    product_kernel_body(out, [&](T(&d)[64]) { name(d, a, b, 0); });                         \
  }                                                                                         \
  __global__ void __launch_bounds__(128) name##_rs_kernel(T *out, uint4 a, uint64_t b) {    \
    const uint32_t registers[4] = {a.x, a.y, a.z, a.w};                                     \
    product_kernel_body(out, [&](T(&d)[64]) { name(d, registers, b, 0); });                 \
  }
WK_PRODUCT(wgmma_s8, uint32_t)
WK_PRODUCT(wgmma_e4m3, float)
WK_PRODUCT(wgmma_bf16, float)

__global__ void loads_kernel(const __grid_constant__ CUtensorMap map, uint32_t *out) {
  __shared__ alignas(1024) uint32_t boxes[3][1024];
  __shared__ Barrier barrier;
  if (threadIdx.x == 0) {
    prefetch_tensor_map(&map);
    barrier.init(1);
    publish_barriers();
    barrier.arrive_and_expect(sizeof boxes);
    load_box(boxes[0], &map, barrier, 0, 0);
    load_box(boxes[1], &map, barrier, 0, 0, 0);
    load_box(boxes[2], &map, barrier, 0, 0, 0, 0);
  }
  __syncthreads();
  barrier.wait(0);
  out[threadIdx.x] = boxes[threadIdx.x % 3][threadIdx.x];
}
