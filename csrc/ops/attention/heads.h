// SPDX-License-Identifier: Apache-2.0
// What forward and backward share on one instruction set.
#pragma once
#include "common/cpu/product.h"
#include "ops/attention/attention_cpu.h"

namespace wk {
namespace WK_ISA {

static_assert(kBlockRows % kTileRows == 0 && kTileRows <= kMaxTileRows && kColumns % kTileRows == 0, "whole tiles");

constexpr double kLog2E = 1.4426950408889634;

WK_INLINE int64_t rounded_up(int64_t count, int64_t step) { return (count + step - 1) / step * step; }

// Token 0 of a head of all B * N.
template <class T>
WK_INLINE T *head_at(const Heads &heads, int64_t head, int64_t num_heads) {
  return reinterpret_cast<T *>(heads.data) + head / num_heads * heads.sample_stride +
         head % num_heads * heads.head_stride;
}

// Rows in words, times `factor`; from `num_rows` to `padded` zeros.
template <class T, class From>
void pack_rows(T *to, const From *from, int64_t stride, int64_t num_rows, int64_t padded, int64_t width,
               float factor = 1.0f) {
  for (int64_t r = 0; r < padded; ++r) {
    for (int64_t i = 0; i < width; i += kLanes) {
      store(to + r * width + i, r < num_rows ? load(from + r * stride + i, Whole{}) * splat(factor) : zeros(), Whole{});
    }
  }
}

}  // namespace WK_ISA
}  // namespace wk
