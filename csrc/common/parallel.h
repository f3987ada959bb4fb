// SPDX-License-Identifier: Apache-2.0
// Sharing a range of work among threads. Results must not depend on how the range is cut.
#pragma once
#include <cstdint>

namespace wk {

int32_t num_threads();
int32_t thread_index();  // inside parallel_for_threads

// Chunks handed out on demand: a static split waits for the slowest thread when the machine is shared.
int64_t chunk_size(int64_t count, int64_t grain, int32_t threads);

// Calls body(begin, end, thread) over [0, count) in pieces of at least `grain`, on several threads if there is work for
// them; `thread` < num_threads() tells whose scratch memory the piece may use.
template <class Body>
void parallel_for_threads(int64_t count, int64_t grain, const Body &body) {
  if (count <= 0) return;
  const int32_t threads = count > grain ? num_threads() : 1;
  if (threads == 1) return body(int64_t{0}, count, 0);
  const int64_t chunk = chunk_size(count, grain, threads);
  const int64_t chunks = (count + chunk - 1) / chunk;
#ifdef _OPENMP
#pragma omp parallel for schedule(dynamic, 1) num_threads(threads)
#endif
  for (int64_t i = 0; i < chunks; ++i) {
    const int64_t begin = i * chunk;
    body(begin, begin + chunk < count ? begin + chunk : count, thread_index());
  }
}

// The same for bodies that need no scratch memory: body(begin, end).
template <class Body>
void parallel_for(int64_t count, int64_t grain, const Body &body) {
  parallel_for_threads(count, grain, [&](int64_t begin, int64_t end, int32_t) { body(begin, end); });
}

// Rows that make a piece worth a thread: below some 32k elements the hand-over costs more than the work.
inline int64_t rows_per_piece(int64_t width) { return width > 0 ? (32768 + width - 1) / width : 1; }

}  // namespace wk
