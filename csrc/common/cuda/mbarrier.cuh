// SPDX-License-Identifier: Apache-2.0
// Barriers in shared memory that count arrivals and bytes. A barrier is in phase 0, 1, 0, ...; a phase ends when all
// expected arrivals have come and all announced bytes have landed.
#pragma once
#include <cstdint>

namespace wk::device {

__device__ __forceinline__ uint32_t shared_address(const void *pointer) {
  return static_cast<uint32_t>(__cvta_generic_to_shared(pointer));
}

class Barrier {
 public:
  __device__ __forceinline__ void init(uint32_t num_arrivals) {
    asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(address()), "r"(num_arrivals) : "memory");
  }
  __device__ __forceinline__ void arrive() {
    asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(address()) : "memory");
  }
  // Arrives, and lets the phase last until so many bytes have landed.
  __device__ __forceinline__ void arrive_and_expect(uint32_t num_bytes) {
    asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(address()), "r"(num_bytes) : "memory");
  }
  // Until the phase of that parity has ended. At first phase 1 counts as ended: a wait for it passes.
  __device__ __forceinline__ void wait(uint32_t parity) {
    while (!has_ended(parity)) {
    }
  }
  __device__ __forceinline__ uint32_t address() const { return shared_address(&state_); }

 private:
  __device__ __forceinline__ bool has_ended(uint32_t parity) {
    uint32_t ended;
    asm volatile(
        "{\n"
        ".reg .pred ended;\n"
        "mbarrier.try_wait.parity.shared::cta.b64 ended, [%1], %2;\n"
        "selp.u32 %0, 1, 0, ended;\n"
        "}"
        : "=r"(ended)
        : "r"(address()), "r"(parity)
        : "memory");
    return ended;
  }

  uint64_t state_;
};

// Makes what init wrote known to the copy engine; a barrier of the block must follow.
__device__ __forceinline__ void publish_barriers() {
  asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
  asm volatile("fence.proxy.async;" ::: "memory");
}

}  // namespace wk::device
