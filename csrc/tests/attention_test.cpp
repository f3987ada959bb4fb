// SPDX-License-Identifier: Apache-2.0
// wk_attention, as ops_test.cpp does the others.
#include <algorithm>

#include "support.h"

namespace {

constexpr int64_t kSamples = 2, kHeads = 2;
constexpr double kScale = -0.4;  // the sign is part of it

struct Shape {
  int64_t num_queries, num_keys, width;
  std::vector<int32_t> lengths;  // of keys, by sample

  std::vector<int64_t> rows(int64_t num_tokens) const { return {kSamples, num_tokens, kHeads, width}; }
  int64_t at(int64_t num_tokens, int64_t head, int64_t token) const {
    return ((head / kHeads * num_tokens + token) * kHeads + head % kHeads) * width;
  }
};

struct Inputs {
  Values q, k, v;
};

// Both results, one after the other.
Values attend(const Shape &shape, const Inputs &in) {
  Values out(in.q.size()), lse;
  for (int64_t head = 0; head < kSamples * kHeads; ++head) {
    const int64_t visible = shape.lengths[static_cast<size_t>(head / kHeads)];
    for (int64_t query = 0; query < shape.num_queries; ++query) {
      const int64_t row = shape.at(shape.num_queries, head, query);
      Values weights;
      double total = 0.0;
      for (int64_t key = 0; key < visible; ++key) {
        const int64_t other = shape.at(shape.num_keys, head, key);
        double score = 0.0;
        for (int64_t c = 0; c < shape.width; ++c) {
          score += in.q[static_cast<size_t>(row + c)] * in.k[static_cast<size_t>(other + c)];
        }
        weights.push_back(std::exp(kScale * score));
        total += weights.back();
      }
      for (int64_t key = 0; key < visible; ++key) {
        const int64_t other = shape.at(shape.num_keys, head, key);
        for (int64_t c = 0; c < shape.width; ++c) {
          out[static_cast<size_t>(row + c)] +=
              weights[static_cast<size_t>(key)] / total * in.v[static_cast<size_t>(other + c)];
        }
      }
      lse.push_back(std::log(total));
    }
  }
  out.insert(out.end(), lse.begin(), lse.end());
  return out;
}

// What lies beyond the lengths is NaN to the library and zero to the formula.
Values hidden_by(const Shape &shape, Values values, double with) {
  for (int64_t head = 0; head < kSamples * kHeads; ++head) {
    for (int64_t key = shape.lengths[static_cast<size_t>(head / kHeads)]; key < shape.num_keys; ++key) {
      const auto row = values.begin() + shape.at(shape.num_keys, head, key);
      std::fill(row, row + shape.width, with);
    }
  }
  return values;
}

wk_tensor lengths_in(std::vector<int32_t> &counts) {
  const int64_t count = static_cast<int64_t>(counts.size());
  return wk_contiguous(counts.data(), WK_INT32, 1, &count);
}

void test_attention(int32_t dtype, const Shape &shape) {
  const std::vector<int64_t> rows = shape.rows(shape.num_queries), keys = shape.rows(shape.num_keys),
                             sums = {kSamples, kHeads, shape.num_queries};
  const double nan = std::nan("");
  const Tensor q({rows}, dtype, numbers(product(rows), 1));
  const Tensor k({keys}, dtype, hidden_by(shape, numbers(product(keys), 2), nan));
  const Tensor v({keys}, dtype, hidden_by(shape, numbers(product(keys), 3), nan));
  std::vector<int32_t> counts = shape.lengths;
  const wk_tensor lengths = lengths_in(counts);
  const Tensor out({rows}, dtype), lse({sums}, WK_FLOAT32);
  EXPECT_OK(wk_attention(&out.view, &lse.view, &q.view, &k.view, &v.view, &lengths, kScale, nullptr));
  const Inputs in = {q.values(), hidden_by(shape, k.values(), 0.0), hidden_by(shape, v.values(), 0.0)};
  const Values wanted = attend(shape, in);
  const auto num_outs = static_cast<int64_t>(in.q.size());
  EXPECT_NEAR(out.values(), Values(wanted.begin(), wanted.begin() + num_outs), tolerance(dtype));
  EXPECT_NEAR(lse.values(), Values(wanted.begin() + num_outs, wanted.end()), 2e-5);

  const Tensor grad_out({rows}, dtype, numbers(product(rows), 4)),
      grad_lse({sums}, WK_FLOAT32, numbers(product(sums), 5));
  const Tensor grad_q({rows}, dtype), grad_k({keys}, dtype), grad_v({keys}, dtype);
  EXPECT_OK(wk_attention_backward(&grad_q.view, &grad_k.view, &grad_v.view, &grad_out.view, &grad_lse.view, &out.view,
                                  &lse.view, &q.view, &k.view, &v.view, &lengths, kScale, nullptr));
  Values cotangents = grad_out.values();
  for (double each : grad_lse.values()) cotangents.push_back(each);
  const auto gradient = [&](Values Inputs::*input) {
    const auto f = [&](const Values &x) {
      Inputs changed = in;
      changed.*input = x;
      return attend(shape, changed);
    };
    return differences(f, in.*input, cotangents);
  };
  EXPECT_NEAR(grad_q.values(), gradient(&Inputs::q), tolerance(dtype));
  EXPECT_NEAR(grad_k.values(), gradient(&Inputs::k), tolerance(dtype));
  EXPECT_NEAR(grad_v.values(), gradient(&Inputs::v), tolerance(dtype));
}

void test_without_keys() {
  const Tensor x({1, 1, 1, 16}, WK_FLOAT32, numbers(16, 1)), out({1, 1, 1, 16}, WK_FLOAT32);
  std::vector<int32_t> none = {0};
  const wk_tensor lengths = lengths_in(none);
  const Tensor lse({1, 1, 1}, WK_FLOAT32);
  EXPECT_OK(wk_attention(&out.view, &lse.view, &x.view, &x.view, &x.view, &lengths, 1.0, nullptr));
  EXPECT(out.values() == Values(16, 0.0) && lse.values() == Values(1, -INFINITY));
}

void test_refusals() {
  const Tensor x({1, 2, 1, 16}, WK_FLOAT32, numbers(32, 1)), lse({1, 1, 2}, WK_FLOAT32),
      narrow({1, 2, 2, 8}, WK_FLOAT32);
  const Tensor half({1, 2, 1, 16}, WK_BFLOAT16, numbers(32, 1)), keyless({1, 0, 1, 16}, WK_FLOAT32);
  const Tensor counts({1}, WK_FLOAT32, {0.0});
  const auto run = [&](const Tensor &q, const Tensor &k, const wk_tensor *k_lengths = nullptr) {
    return wk_attention(&x.view, &lse.view, &q.view, &k.view, &k.view, k_lengths, 1.0, nullptr);
  };
  const wk_status invalid = WK_ERROR_INVALID_ARGUMENT;
  EXPECT_REFUSED(run(lse, x), invalid, "[attention] q and k must have 4 dimensions, got 3 and 4");
  EXPECT_REFUSED(run(x, keyless), invalid, "k must have at least one key, got none");
  EXPECT_REFUSED(run(narrow, narrow), invalid, "H must be a multiple of 16, got 8");
  EXPECT_REFUSED(run(x, half), invalid, "k must have the dtype of q float32, got bfloat16");
  EXPECT_REFUSED(run(x, x, &counts.view), invalid, "k_lengths must be int32 or int64, got float32");
  std::vector<int32_t> beyond = {3};
  const wk_tensor lengths = lengths_in(beyond);
  EXPECT_REFUSED(run(x, x, &lengths), invalid, "k_lengths must lie in [0, 2], got 3");
  EXPECT_REFUSED(wk_attention_backward(&half.view, &x.view, &x.view, nullptr, nullptr, &x.view, &lse.view, &x.view,
                                       &x.view, &x.view, nullptr, 1.0, nullptr),
                 invalid, "grad_q must have the dtype of q float32, got bfloat16");
}

}  // namespace

void test_attention() {
  for (int32_t dtype : kDtypes) {
    for (const Shape &shape : {Shape{1, 1, 16, {1, 1}}, Shape{3, 5, 48, {5, 2}}, Shape{9, 19, 16, {17, 1}}}) {
      test_attention(dtype, shape);
    }
  }
  test_without_keys();
  test_refusals();
}
