// SPDX-License-Identifier: Apache-2.0
// Heads of 64 or 128 channels with a scale of their own: values stay in registers from what they are made of to their
// codes.
#pragma once
#include "common/cpu/codes.h"

namespace wk {
namespace WK_ISA {

template <int64_t kVectors>
struct Head {
  Floats values[kVectors];
  float size;  // the largest; NaN if one is
};

// Of value(i) for each vector.
template <int64_t kVectors, class Value>
WK_INLINE Head<kVectors> read_head(const Value &value) {
  Head<kVectors> head;
  Words sizes = {};
  for (int64_t j = 0; j < kVectors; ++j) {
    head.values[j] = value(j * kLanes);
    sizes = larger(sizes, size_bits(head.values[j]));
  }
  head.size = largest(sizes);
  return head;
}

template <int64_t kVectors>
WK_INLINE void encode_head(int8_t *codes, float *scale, const Head<kVectors> &head, bool is_out_streamed) {
  *scale = scale_for(head.size, limit_of(int8_t{}));
  if (head.size - head.size != 0.0f) {
    __builtin_memset(codes, 0, kVectors * kLanes);
    return;
  }
  const Floats inverse = splat(inverse_scale_for(head.size, limit_of(int8_t{})));
  for (int64_t j = 0; j < kVectors; j += 4) {
    Floats scaled[4];
    for (int64_t k = 0; k < 4; ++k) scaled[k] = head.values[j + k] * inverse;
    put(codes + j * kLanes, encode_four(scaled, int8_t{}), is_out_streamed);
  }
}

// Calls read(i) for heads [0, count) and encode(i, head) for what it returns, two heads at a time: the way from one's
// sizes to its codes is long, and the other's values are made meanwhile.
template <class Read, class Encode>
WK_INLINE void for_each_head(int64_t count, const Read &read, const Encode &encode) {
  int64_t i = 0;
  for (; i + 2 <= count; i += 2) {
    const auto first = read(i), second = read(i + 1);
    encode(i, first);
    encode(i + 1, second);
  }
  if (i < count) encode(i, read(i));
}

}  // namespace WK_ISA
}  // namespace wk
