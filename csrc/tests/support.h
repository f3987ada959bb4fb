// SPDX-License-Identifier: Apache-2.0
// What the C++ tests say with: tensors that own their memory, expectations, gradients by finite differences.
#pragma once
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <vector>

#include "wan_kernels.h"

using Values = std::vector<double>;

constexpr double kEps = 1e-6;
constexpr int32_t kDtypes[] = {WK_FLOAT32, WK_BFLOAT16};

inline void expect(bool condition, const char *what, int line) {
  if (condition) return;
  std::printf("line %d: expected %s; last error: %s\n", line, what, wk_last_error());
  std::exit(1);
}
#define EXPECT(condition) expect((condition), #condition, __LINE__)
#define EXPECT_OK(call) EXPECT((call) == WK_OK)
#define EXPECT_REFUSED(call, wanted, text)                 \
  do {                                                     \
    EXPECT((call) == (wanted));                            \
    EXPECT(std::strstr(wk_last_error(), text) != nullptr); \
  } while (0)

inline int64_t product(const std::vector<int64_t> &shape) {
  int64_t count = 1;
  for (int64_t extent : shape) count *= extent;
  return count;
}

// Numbers in [-1, 1], the same in every run.
inline Values numbers(int64_t count, unsigned seed) {
  Values values(static_cast<size_t>(count));
  unsigned state = seed * 2654435761u + 12345u;
  for (double &value : values) {
    state = state * 1664525u + 1013904223u;
    value = static_cast<double>(state >> 8) / (1 << 23) - 1.0;
  }
  return values;
}

// Owns exactly the bytes it needs, so that a step past the end is caught by the address sanitizer.
class Tensor {
 public:
  Tensor(std::vector<int64_t> shape, int32_t dtype, const Values &values = {}) : dtype_(dtype) {
    count_ = product(shape);
    bytes_.reset(count_ * (dtype == WK_FLOAT32 ? 4 : 2));
    view = wk_contiguous(bytes_.data, dtype, static_cast<int32_t>(shape.size()), shape.data());
    for (int64_t i = 0; i < count_; ++i) set(i, values.empty() ? std::nan("") : values[static_cast<size_t>(i)]);
  }

  Values values() const {
    Values result;
    for (int64_t i = 0; i < count_; ++i) result.push_back(get(i));
    return result;
  }

  wk_tensor view;

 private:
  struct Memory {
    char *data = nullptr;
    ~Memory() { std::free(data); }
    void reset(int64_t size) { data = static_cast<char *>(std::malloc(static_cast<size_t>(size > 0 ? size : 1))); }
  };

  // bf16 is the upper half of fp32; exact for what the tests store, which is rounded by truncation.
  double get(int64_t i) const {
    if (dtype_ == WK_FLOAT32) return reinterpret_cast<const float *>(bytes_.data)[i];
    const uint32_t bits = uint32_t{reinterpret_cast<const uint16_t *>(bytes_.data)[i]} << 16;
    float value;
    std::memcpy(&value, &bits, sizeof value);
    return value;
  }
  void set(int64_t i, double value) {
    const float single = static_cast<float>(value);
    if (dtype_ == WK_FLOAT32) {
      reinterpret_cast<float *>(bytes_.data)[i] = single;
      return;
    }
    uint32_t bits;
    std::memcpy(&bits, &single, sizeof bits);
    reinterpret_cast<uint16_t *>(bytes_.data)[i] = static_cast<uint16_t>(bits >> 16);
  }

  int32_t dtype_;
  int64_t count_;
  Memory bytes_;
};

inline double tolerance(int32_t dtype) { return dtype == WK_FLOAT32 ? 2e-5 : 2e-2; }

inline void expect_near(const Values &got, const Values &wanted, double allowed, int line) {
  expect(got.size() == wanted.size(), "equal sizes", line);
  double largest = 1.0;
  for (double value : wanted) largest = std::fmax(largest, std::fabs(value));
  for (size_t i = 0; i < got.size(); ++i) {
    if (std::fabs(got[i] - wanted[i]) <= allowed * largest) continue;
    std::printf("line %d: element %zu is %g, expected %g\n", line, i, got[i], wanted[i]);
    std::exit(1);
  }
}
#define EXPECT_NEAR(got, wanted, allowed) expect_near((got), (wanted), (allowed), __LINE__)

// d(sum of grad_out * f(x)) / dx by central differences in double precision.
inline Values differences(const std::function<Values(const Values &)> &f, const Values &x, const Values &grad_out) {
  constexpr double kStep = 1e-5;
  Values gradient(x.size());
  for (size_t i = 0; i < x.size(); ++i) {
    Values above = x, below = x;
    above[i] += kStep;
    below[i] -= kStep;
    const Values f_above = f(above), f_below = f(below);
    for (size_t k = 0; k < grad_out.size(); ++k) gradient[i] += grad_out[k] * (f_above[k] - f_below[k]) / (2 * kStep);
  }
  return gradient;
}

// Codes that own exactly their bytes.
struct Codes {
  explicit Codes(std::vector<int64_t> shape, int32_t dtype = WK_INT8, int first = -64)
      : bytes(static_cast<size_t>(product(shape))) {
    for (size_t i = 0; i < bytes.size(); ++i) bytes[i] = static_cast<int8_t>(first + static_cast<int>(i * 37 % 120));
    view = wk_contiguous(bytes.data(), dtype, static_cast<int32_t>(shape.size()), shape.data());
  }
  std::vector<int8_t> bytes;
  wk_tensor view;
};
