// SPDX-License-Identifier: Apache-2.0
// Registers handed from one warpgroup to others, and barriers between warpgroups.
#pragma once
#include <cstdint>

namespace wk::device {

// Every warp of the warpgroup must call these. A multiple of 8 in [24, 256].
template <uint32_t kCount>
__device__ __forceinline__ void release_registers() {
  asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(kCount));
}
template <uint32_t kCount>
__device__ __forceinline__ void claim_registers() {
  asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(kCount));
}

// Named barriers: 0 is __syncthreads, 1 to 15 are free. `num_threads` counts both those that wait and those that only
// arrive, in whole warps.
__device__ __forceinline__ void wait_for_others(int barrier, int num_threads) {
  asm volatile("bar.sync %0, %1;" ::"r"(barrier), "r"(num_threads) : "memory");
}
__device__ __forceinline__ void arrive_for_others(int barrier, int num_threads) {
  asm volatile("bar.arrive %0, %1;" ::"r"(barrier), "r"(num_threads) : "memory");
}

}  // namespace wk::device
