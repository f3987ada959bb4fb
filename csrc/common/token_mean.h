// SPDX-License-Identifier: Apache-2.0
// Means over the tokens of a sample, as 8-bit attention takes them off: summed in parts that the shape cuts, in order.
#pragma once
#include "common/memory.h"
#include "common/parallel.h"
#include "common/reduce.h"

namespace wk {

// Writes mean [B, N, H] over `length` tokens: sum(begin, end, sums, memory) adds the rows of these tokens of all
// B * length, of one sample, to sums[N * H] with memory for `memory_floats`. The mean of no tokens is 0.
template <class Sum>
wk_status write_token_mean(const char *op, const wk_tensor &mean, int64_t length, int64_t memory_floats,
                           const Sum &sum) {
  const int64_t batch = mean.shape[0], width = mean.shape[1] * mean.shape[2], part_floats = width + memory_floats;
  const Split split = split_rows(length, width);
  FloatBuffer parts;
  WK_TRY(parts.allocate_filled(op, batch * split.num_parts * part_floats, 0.0f));
  parallel_for(batch * split.num_parts, 1, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      float *sums = parts.data() + i * part_floats;
      const int64_t first = i / split.num_parts * length, part = i % split.num_parts;
      sum(first + split.begin(part), first + split.end(part), sums, sums + width);
    }
  });
  sum_tables(parts.data(), split.num_parts, part_floats, mean);
  const float num_tokens = static_cast<float>(length > 0 ? length : 1);
  float *values = static_cast<float *>(mean.data);
  for (int64_t i = 0; i < batch * width; ++i) values[i] /= num_tokens;
  return WK_OK;
}

// A mean that is not taken off.
inline void clear_token_mean(const wk_tensor &mean) {
  float *values = static_cast<float *>(mean.data);
  for (int64_t i = 0; i < element_count(mean); ++i) values[i] = 0.0f;
}

}  // namespace wk
