// SPDX-License-Identifier: Apache-2.0
// Sharing a range of work among threads. Results must not depend on how the range is cut.
#pragma once
#include <cstdint>

namespace wk {

int32_t num_threads();

// Chunks handed out on demand: a static split waits for the slowest thread when the machine is shared.
int64_t chunk_size(int64_t count, int64_t grain, int32_t threads);

// Calls body(begin, end) over [0, count) in pieces of at least `grain`, on several threads if there is work for them.
template <class Body>
void parallel_for(int64_t count, int64_t grain, const Body &body) {
  if (count <= 0) return;
  const int32_t threads = count > grain ? num_threads() : 1;
  if (threads == 1) return body(int64_t{0}, count);
  const int64_t chunk = chunk_size(count, grain, threads);
  const int64_t chunks = (count + chunk - 1) / chunk;
#ifdef _OPENMP
#pragma omp parallel for schedule(dynamic, 1) num_threads(threads)
#endif
  for (int64_t i = 0; i < chunks; ++i) {
    const int64_t begin = i * chunk;
    body(begin, begin + chunk < count ? begin + chunk : count);
  }
}

// Rows that make a piece worth a thread: below some 32k elements the hand-over costs more than the work.
inline int64_t rows_per_piece(int64_t width) { return width > 0 ? (32768 + width - 1) / width : 1; }

}  // namespace wk
