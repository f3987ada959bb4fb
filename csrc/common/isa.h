// SPDX-License-Identifier: Apache-2.0
// The instruction set is chosen once per process; kernels come as one table per instruction set.
#pragma once
#include "common/status.h"

namespace wk {

enum class Isa { kBaseline, kAvx2, kAvx512, kAvx512Bf16 };

// WK_ERROR_INVALID_ARGUMENT or WK_ERROR_UNSUPPORTED if WAN_KERNELS_CPU_ISA names what cannot run.
wk_status current_isa(Isa *isa);

}  // namespace wk

// Declares `const Type name` in every namespace that was compiled, and `select_<name>()` to pick one of them.
#if WK_X86_64
#define WK_DECLARE_KERNELS(Type, name)                                                             \
  namespace baseline {                                                                             \
  extern const Type name;                                                                          \
  }                                                                                                \
  namespace avx2 {                                                                                 \
  extern const Type name;                                                                          \
  }                                                                                                \
  namespace avx512 {                                                                               \
  extern const Type name;                                                                          \
  }                                                                                                \
  namespace avx512_bf16 {                                                                          \
  extern const Type name;                                                                          \
  }                                                                                                \
  inline wk_status select_##name(const Type **kernels) {                                           \
    const Type *const table[] = {&baseline::name, &avx2::name, &avx512::name, &avx512_bf16::name}; \
    Isa isa;                                                                                       \
    WK_TRY(current_isa(&isa));                                                                     \
    *kernels = table[static_cast<int>(isa)];                                                       \
    return WK_OK;                                                                                  \
  }
#else
#define WK_DECLARE_KERNELS(Type, name)                   \
  namespace baseline {                                   \
  extern const Type name;                                \
  }                                                      \
  inline wk_status select_##name(const Type **kernels) { \
    Isa isa;                                             \
    WK_TRY(current_isa(&isa));                           \
    *kernels = &baseline::name;                          \
    return WK_OK;                                        \
  }
#endif
