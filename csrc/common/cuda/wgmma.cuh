// SPDX-License-Identifier: Apache-2.0
// Products by a warpgroup: d[64 x 128] = a[64 x K] b[128 x K]^T, or added to d; K is 32 bytes of a row. They run on
// while the threads go on: fence, multiply, commit, and wait before d, or an a in registers, is touched.
#pragma once
#include <cstdint>

namespace wk::device {

// Before the first product, and after registers that it takes have been written.
__device__ __forceinline__ void wgmma_fence() { asm volatile("wgmma.fence.sync.aligned;" ::: "memory"); }

// Closes a group of products.
__device__ __forceinline__ void wgmma_commit() { asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory"); }

// Until at most kPending groups, the youngest, are still running.
template <int kPending>
__device__ __forceinline__ void wgmma_wait() {
  asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(kPending) : "memory");
}

// Tells the compiler that these registers change here: what reads or writes them stays on its side.
template <int kCount>
__device__ __forceinline__ void pin(float (&registers)[kCount]) {
#pragma unroll
  for (int i = 0; i < kCount; ++i) asm volatile("" : "+f"(registers[i])::"memory");
}
template <int kCount>
__device__ __forceinline__ void pin(uint32_t (&registers)[kCount]) {
#pragma unroll
  for (int i = 0; i < kCount; ++i) asm volatile("" : "+r"(registers[i])::"memory");
}

#define WK_REGISTERS                                                 \
  "{%0,%1,%2,%3,%4,%5,%6,%7,%8,%9,%10,%11,%12,%13,%14,%15,"          \
  "%16,%17,%18,%19,%20,%21,%22,%23,%24,%25,%26,%27,%28,%29,%30,%31," \
  "%32,%33,%34,%35,%36,%37,%38,%39,%40,%41,%42,%43,%44,%45,%46,%47," \
  "%48,%49,%50,%51,%52,%53,%54,%55,%56,%57,%58,%59,%60,%61,%62,%63}"
#define WK_BIND_8(how, d, i) \
  how(d[i]), how(d[i + 1]), how(d[i + 2]), how(d[i + 3]), how(d[i + 4]), how(d[i + 5]), how(d[i + 6]), how(d[i + 7])
#define WK_BIND(how, d)                                                                                            \
  WK_BIND_8(how, d, 0), WK_BIND_8(how, d, 8), WK_BIND_8(how, d, 16), WK_BIND_8(how, d, 24), WK_BIND_8(how, d, 32), \
      WK_BIND_8(how, d, 40), WK_BIND_8(how, d, 48), WK_BIND_8(how, d, 56)

// a from shared memory. is_sum 0: d is written, not added to. Signs: factors of 1 for the floating types.
#define WK_DEFINE_WGMMA_SS(name, types, T, how, signs)                                                         \
  __device__ __forceinline__ void name(T(&d)[64], uint64_t a, uint64_t b, int is_sum) {                        \
    asm volatile(                                                                                              \
        "{\n.reg .pred is_sum;\nsetp.ne.b32 is_sum, %66, 0;\nwgmma.mma_async.sync.aligned." types WK_REGISTERS \
        ", %64, %65, is_sum" signs ";\n}"                                                                      \
        : WK_BIND(how, d)                                                                                      \
        : "l"(a), "l"(b), "r"(is_sum));                                                                        \
  }

// a from registers.
#define WK_DEFINE_WGMMA_RS(name, types, T, how, signs)                                                         \
  __device__ __forceinline__ void name(T(&d)[64], const uint32_t *a, uint64_t b, int is_sum) {                 \
    asm volatile(                                                                                              \
        "{\n.reg .pred is_sum;\nsetp.ne.b32 is_sum, %69, 0;\nwgmma.mma_async.sync.aligned." types WK_REGISTERS \
        ", {%64, %65, %66, %67}, %68, is_sum" signs ";\n}"                                                     \
        : WK_BIND(how, d)                                                                                      \
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b), "r"(is_sum));                                    \
  }

WK_DEFINE_WGMMA_SS(wgmma_s8, "m64n128k32.s32.s8.s8 ", uint32_t, "+r", "")
WK_DEFINE_WGMMA_SS(wgmma_e4m3, "m64n128k32.f32.e4m3.e4m3 ", float, "+f", ", 1, 1")
WK_DEFINE_WGMMA_SS(wgmma_bf16, "m64n128k16.f32.bf16.bf16 ", float, "+f", ", 1, 1, 0, 0")
WK_DEFINE_WGMMA_RS(wgmma_s8, "m64n128k32.s32.s8.s8 ", uint32_t, "+r", "")
WK_DEFINE_WGMMA_RS(wgmma_e4m3, "m64n128k32.f32.e4m3.e4m3 ", float, "+f", ", 1, 1")
WK_DEFINE_WGMMA_RS(wgmma_bf16, "m64n128k16.f32.bf16.bf16 ", float, "+f", ", 1, 1, 0")

#undef WK_DEFINE_WGMMA_RS
#undef WK_DEFINE_WGMMA_SS
#undef WK_BIND
#undef WK_BIND_8
#undef WK_REGISTERS

}  // namespace wk::device
