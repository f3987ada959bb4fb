// SPDX-License-Identifier: Apache-2.0
// How 8-bit matrices are packed for products on CPUs: groups of 16 columns, in each the quads of 4 consecutive
// products, in each quad column by column.
#pragma once
#include <cstdint>

namespace wk {

constexpr int64_t kGroupColumns = 16, kQuad = 4, kQuadBytes = kGroupColumns * kQuad;

}  // namespace wk
