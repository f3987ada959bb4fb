// SPDX-License-Identifier: Apache-2.0
#include "common/parallel.h"

#include "wan_kernels.h"

#ifdef _OPENMP
#include <omp.h>
#endif

namespace wk {
namespace {
thread_local int32_t requested_threads = 0;
}

int32_t num_threads() {
#ifdef _OPENMP
  if (omp_in_parallel()) return 1;
  return requested_threads > 0 ? requested_threads : omp_get_max_threads();
#else
  return 1;
#endif
}

int32_t thread_index() {
#ifdef _OPENMP
  return omp_get_thread_num();
#else
  return 0;
#endif
}

int64_t chunk_size(int64_t count, int64_t grain, int32_t threads) {
  const int64_t pieces = int64_t{threads} * 8;
  const int64_t even = (count + pieces - 1) / pieces;
  return even > grain ? even : grain;
}

}  // namespace wk

extern "C" int32_t wk_num_threads(void) { return wk::num_threads(); }

extern "C" void wk_set_num_threads(int32_t num_threads) { wk::requested_threads = num_threads > 0 ? num_threads : 0; }
