// SPDX-License-Identifier: Apache-2.0
// wk_merge_attention, as ops_test.cpp does the others.
#include "support.h"

namespace {

constexpr int64_t kSamples = 2, kLength = 3, kHeads = 5;
constexpr double kNoKeys = -INFINITY;

struct Parts {
  Values out_a, lse_a, out_b, lse_b;
};

int64_t lse_at(int64_t row) {
  const int64_t head = row % kHeads, token = row / kHeads % kLength, sample = row / kHeads / kLength;
  return (sample * kHeads + head) * kLength + token;
}

// Both results, one after the other.
Values merge(const Parts &in, int64_t width) {
  Values out(in.out_a.size()), lse(in.lse_a.size());
  for (size_t i = 0; i < out.size(); ++i) {
    const size_t at = static_cast<size_t>(lse_at(static_cast<int64_t>(i) / width));
    const double larger = std::fmax(in.lse_a[at], in.lse_b[at]);
    lse[at] = larger + std::log(std::exp(in.lse_a[at] - larger) + std::exp(in.lse_b[at] - larger));
    out[i] = in.out_a[i] * std::exp(in.lse_a[at] - lse[at]) + in.out_b[i] * std::exp(in.lse_b[at] - lse[at]);
  }
  out.insert(out.end(), lse.begin(), lse.end());
  return out;
}

void test_merge_attention(int32_t dtype, int64_t width, double center) {
  const int64_t count = kSamples * kLength * kHeads;
  const std::vector<int64_t> rows = {kSamples, kLength, kHeads, width}, sums = {kSamples, kHeads, kLength};
  Values lse_a = numbers(count, 1), lse_b = numbers(count, 2);
  for (double &lse : lse_a) lse = 3 * lse + center;
  for (double &lse : lse_b) lse = 3 * lse + center;
  const Tensor a({rows}, WK_FLOAT32, numbers(count * width, 3)), b({rows}, dtype, numbers(count * width, 4)),
      of_a({sums}, WK_FLOAT32, lse_a), of_b({sums}, WK_FLOAT32, lse_b);
  const Parts parts = {a.values(), of_a.values(), b.values(), of_b.values()};
  const auto expect_parts = [&](const Tensor &out, const Tensor &lse) {
    Values found = out.values(), sum = lse.values();
    const Values wanted = merge(parts, width);
    EXPECT_NEAR(found, Values(wanted.begin(), wanted.end() - count), 2e-6);
    EXPECT_NEAR(sum, Values(wanted.end() - count, wanted.end()), 1e-6);
  };
  const Tensor out({rows}, WK_FLOAT32), lse({sums}, WK_FLOAT32);
  EXPECT_OK(wk_merge_attention(&out.view, &lse.view, &a.view, &of_a.view, &b.view, &of_b.view, nullptr));
  expect_parts(out, lse);
  const Tensor in_place({rows}, WK_FLOAT32, parts.out_a), lse_in_place({sums}, WK_FLOAT32, parts.lse_a);
  EXPECT_OK(wk_merge_attention(&in_place.view, &lse_in_place.view, &in_place.view, &lse_in_place.view, &b.view,
                               &of_b.view, nullptr));
  expect_parts(in_place, lse_in_place);

  const Tensor grad_out({rows}, WK_FLOAT32, numbers(count * width, 5)), grad_lse({sums}, WK_FLOAT32, numbers(count, 6));
  const Tensor grad_a({rows}, WK_FLOAT32), grad_b({rows}, dtype), grad_of_a({sums}, WK_FLOAT32),
      grad_of_b({sums}, WK_FLOAT32);
  EXPECT_OK(wk_merge_attention_backward(&grad_a.view, &grad_of_a.view, &grad_b.view, &grad_of_b.view, &grad_out.view,
                                        &grad_lse.view, &a.view, &of_a.view, &b.view, &of_b.view, nullptr));
  Values cotangents = grad_out.values();
  for (double each : grad_lse.values()) cotangents.push_back(each);
  const auto gradient = [&](Values Parts::*part) {
    const auto f = [&](const Values &v) {
      Parts changed = parts;
      changed.*part = v;
      return merge(changed, width);
    };
    return differences(f, parts.*part, cotangents);
  };
  EXPECT_NEAR(grad_a.values(), gradient(&Parts::out_a), 1e-5);
  EXPECT_NEAR(grad_b.values(), gradient(&Parts::out_b), tolerance(dtype));
  EXPECT_NEAR(grad_of_a.values(), gradient(&Parts::lse_a), 1e-5);
  EXPECT_NEAR(grad_of_b.values(), gradient(&Parts::lse_b), 1e-5);
}

// Four tokens of one head: nothing in a, nothing in b, nothing in either, infinite in both.
void test_without_keys() {
  const double nan = std::nan("");
  const Tensor a({1, 4, 1, 3}, WK_FLOAT32, {nan, nan, nan, 1, -0.0, 3, nan, nan, nan, 4, 5, 6}),
      b({1, 4, 1, 3}, WK_BFLOAT16, {7, -0.0, 9, nan, nan, nan, nan, nan, nan, 7, 8, 9});
  const Tensor of_a({1, 1, 4}, WK_FLOAT32, {kNoKeys, 2, kNoKeys, INFINITY}),
      of_b({1, 1, 4}, WK_FLOAT32, {5, kNoKeys, kNoKeys, INFINITY});
  const Tensor out({1, 4, 1, 3}, WK_FLOAT32), lse({1, 1, 4}, WK_FLOAT32);
  EXPECT_OK(wk_merge_attention(&out.view, &lse.view, &a.view, &of_a.view, &b.view, &of_b.view, nullptr));
  const Values found = out.values();
  EXPECT(Values(found.begin(), found.begin() + 9) == Values({7, -0.0, 9, 1, -0.0, 3, 0, 0, 0}));
  EXPECT(std::signbit(found[1]) && std::signbit(found[4]));
  for (size_t i = 9; i < 12; ++i) EXPECT(std::isnan(found[i]));
  EXPECT(lse.values() == Values({5, 2, kNoKeys, INFINITY}));

  // The last token aside, whose gradients are NaN.
  const int64_t rows_shape[4] = {1, 3, 1, 3}, sums_shape[3] = {1, 1, 3};
  const auto rows = [&](const Tensor &x, int32_t dtype) { return wk_contiguous(x.view.data, dtype, 4, rows_shape); };
  const auto sums = [&](const Tensor &x) { return wk_contiguous(x.view.data, WK_FLOAT32, 3, sums_shape); };
  const wk_tensor rows_a = rows(a, WK_FLOAT32), rows_b = rows(b, WK_BFLOAT16), sums_a = sums(of_a), sums_b = sums(of_b);
  const Tensor grad_a({1, 3, 1, 3}, WK_FLOAT32), grad_b({1, 3, 1, 3}, WK_BFLOAT16), grad_of_a({1, 1, 3}, WK_FLOAT32),
      grad_of_b({1, 1, 3}, WK_FLOAT32), ones({1, 3, 1, 3}, WK_FLOAT32, Values(9, 1.0)),
      twos({1, 1, 3}, WK_FLOAT32, Values(3, 2.0));
  EXPECT_OK(wk_merge_attention_backward(&grad_a.view, &grad_of_a.view, &grad_b.view, &grad_of_b.view, &ones.view,
                                        &twos.view, &rows_a, &sums_a, &rows_b, &sums_b, nullptr));
  EXPECT(grad_a.values() == Values({0, 0, 0, 1, 1, 1, 0, 0, 0}));
  EXPECT(grad_b.values() == Values({1, 1, 1, 0, 0, 0, 0, 0, 0}));
  EXPECT(grad_of_a.values() == Values({0, 2, 0}));
  EXPECT(grad_of_b.values() == Values({2, 0, 0}));
  EXPECT_OK(wk_merge_attention_backward(&grad_a.view, nullptr, nullptr, &grad_of_b.view, nullptr, nullptr, &rows_a,
                                        &sums_a, &rows_b, &sums_b, nullptr));
  EXPECT(grad_a.values() == Values(9, 0.0) && grad_of_b.values() == Values(3, 0.0));
}

void test_refusals() {
  const Tensor x({1, 2, 3, 4}, WK_FLOAT32, numbers(24, 1)), lse({1, 3, 2}, WK_FLOAT32, numbers(6, 2));
  const Tensor half({1, 2, 3, 4}, WK_BFLOAT16, numbers(24, 1)), crossed({1, 2, 3}, WK_FLOAT32, numbers(6, 2));
  const auto run = [&](const Tensor &out, const Tensor &a, const Tensor &of_a) {
    return wk_merge_attention(&out.view, &lse.view, &a.view, &of_a.view, &x.view, &lse.view, nullptr);
  };
  const wk_status invalid = WK_ERROR_INVALID_ARGUMENT;
  EXPECT_REFUSED(run(x, lse, lse), invalid, "[merge_attention] out_a must have 4 dimensions, got 3");
  EXPECT_REFUSED(run(x, x, crossed), invalid, "lse_a must have shape (1, 3, 2), got (1, 2, 3)");
  EXPECT_REFUSED(run(half, x, lse), invalid, "out must have the dtype of out_a float32, got bfloat16");
  EXPECT_REFUSED(wk_merge_attention_backward(&half.view, nullptr, nullptr, nullptr, &x.view, nullptr, &x.view,
                                             &lse.view, &x.view, &lse.view, nullptr),
                 invalid, "grad_out_a must have the dtype of out_a float32, got bfloat16");
  const Tensor none({1, 0, 3, 4}, WK_FLOAT32), no_lse({1, 3, 0}, WK_FLOAT32);
  EXPECT_OK(wk_merge_attention(&none.view, &no_lse.view, &none.view, &no_lse.view, &none.view, &no_lse.view, nullptr));
}

}  // namespace

void test_merge_attention() {
  for (int32_t dtype : kDtypes) {
    for (int64_t width : {1, 7, 16, 37}) {
      for (double center : {0.0, -40.0}) test_merge_attention(dtype, width, center);
    }
  }
  test_without_keys();
  test_refusals();
}
