// SPDX-License-Identifier: Apache-2.0
// A C++ program on the library alone: normalise rows on the CPU and check what came back.
#include <wan_kernels.h>

#include <cmath>
#include <cstdio>
#include <vector>

int main() {
  const int64_t shape[2] = {512, 1536};
  std::vector<float> x(512 * 1536), out(x.size()), weight(1536, 2.0f);
  for (size_t i = 0; i < x.size(); ++i) x[i] = std::sin(static_cast<float>(i));

  const wk_tensor x_view = wk_contiguous(x.data(), WK_FLOAT32, 2, shape);
  const wk_tensor out_view = wk_contiguous(out.data(), WK_FLOAT32, 2, shape);
  const wk_tensor weight_view = wk_contiguous(weight.data(), WK_FLOAT32, 1, &shape[1]);
  const char *isa = nullptr;
  if (wk_cpu_isa(&isa) != WK_OK || wk_rms_norm(&out_view, &x_view, &weight_view, 1e-6, nullptr) != WK_OK) {
    std::fprintf(stderr, "%s\n", wk_last_error());
    return 1;
  }

  // The root mean square of every row is now its weight.
  double worst = 0;
  for (int64_t row = 0; row < shape[0]; ++row) {
    double squares = 0;
    for (int64_t i = 0; i < shape[1]; ++i) squares += std::pow(out[static_cast<size_t>(row * shape[1] + i)], 2.0);
    worst = std::fmax(worst, std::fabs(std::sqrt(squares / static_cast<double>(shape[1])) - 2.0));
  }
  std::printf("wan_kernels %s on %s: rms_norm of 512 rows, off by at most %.1e\n", wk_version(), isa, worst);
  return worst < 1e-4 ? 0 : 1;
}
