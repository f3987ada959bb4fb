// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <cstdint>

namespace wk {

// Whether heads of this width are encoded in registers (common/cpu/head.h).
inline bool fits_registers(int64_t head_width) { return head_width == 64 || head_width == 128; }

}  // namespace wk
