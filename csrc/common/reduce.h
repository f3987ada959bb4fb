// SPDX-License-Identifier: Apache-2.0
// How sums over rows are cut: by the shape alone, so that the result does not depend on the number of threads.
#pragma once
#include <cstdint>

namespace wk {

struct Split {
  int64_t count = 0;
  int64_t num_parts = 0;

  int64_t begin(int64_t part) const { return count * part / num_parts; }
  int64_t end(int64_t part) const { return count * (part + 1) / num_parts; }
};

// 32 parts keep 16 cores busy and the partial sums small; 16 rows repay one partial sum.
inline Split split_rows(int64_t count, int64_t max_parts = 32) {
  const int64_t parts = (count + 15) / 16;
  return Split{count, parts < max_parts ? parts : max_parts};
}

}  // namespace wk
