// SPDX-License-Identifier: Apache-2.0
// How sums over rows are cut: by the shape alone, so that the result does not depend on the number of threads.
#pragma once
#include <cstdint>

#include "common/parallel.h"

namespace wk {

struct Split {
  int64_t count = 0;
  int64_t num_parts = 0;

  int64_t begin(int64_t part) const { return count * part / num_parts; }
  int64_t end(int64_t part) const { return count * (part + 1) / num_parts; }
};

// 32 parts keep 16 cores busy and the partial sums small; a part has to repay one partial sum and one hand-over.
inline Split split_rows(int64_t count, int64_t width, int64_t max_parts = 32) {
  const int64_t piece = rows_per_piece(width) > 16 ? rows_per_piece(width) : 16;
  const int64_t parts = (count + piece - 1) / piece;
  return Split{count, parts < max_parts ? parts : max_parts};
}

// As split_rows for the tokens of one sample, whose partial sums are tables of `num_rows` rows: at most 512 rows in
// all, so that one table per token does not multiply its memory.
inline Split split_tokens(int64_t length, int64_t width, int64_t num_rows) {
  const int64_t fitting = num_rows > 0 ? 512 / num_rows : 1;
  return split_rows(length, width, fitting < 1 ? 1 : fitting > 32 ? 32 : fitting);
}

}  // namespace wk
