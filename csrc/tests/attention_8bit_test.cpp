// SPDX-License-Identifier: Apache-2.0
// wk_attention_8bit, as ops_test.cpp does the others.
#include "support.h"

namespace {

constexpr int64_t kSamples = 2, kHeads = 2, kBatch = kSamples * kHeads;

struct Call {
  int64_t length, num_keys, width, v_block;
  int64_t positions() const { return (num_keys + 127) / 128 * 128; }
  int64_t v_blocks() const { return v_block ? (positions() + v_block - 1) / v_block : 1; }
};

struct Inputs {
  explicit Inputs(const Call &call)
      : q({kSamples, kHeads, call.length, call.width}),
        k({kSamples, kHeads, call.num_keys, call.width}, WK_INT8, -50),
        v({kSamples, kHeads, call.width, call.positions()}, WK_INT8, -40),
        q_scale({kSamples, kHeads, call.length}, WK_FLOAT32, Values(kBatch * call.length, 0.02)),
        k_scale({kSamples, kHeads, (call.num_keys + 2) / 3}, WK_FLOAT32, scales(kBatch * ((call.num_keys + 2) / 3))),
        k_mean({kSamples, kHeads, call.width}, WK_FLOAT32, numbers(kBatch * call.width, 3)),
        v_scale({kSamples, kHeads, call.v_blocks(), call.width}, WK_FLOAT32,
                scales(kBatch * call.v_blocks() * call.width)),
        v_mean({kSamples, kHeads, call.width}, WK_FLOAT32, numbers(kBatch * call.width, 5)) {}

  static Values scales(int64_t count) {
    Values values = numbers(count, 4);
    for (double &each : values) each = 0.02 + 0.01 * each;
    return values;
  }

  Codes q, k, v;
  Tensor q_scale, k_scale, k_mean, v_scale, v_mean;
};

// Output and log-sum-exp of one query over the first `count` keys.
void attend(const Call &call, const Inputs &in, int64_t head, int64_t query, int64_t count, double *out, double *lse) {
  const Values q_scale = in.q_scale.values(), k_scale = in.k_scale.values(), k_mean = in.k_mean.values(),
               v_scale = in.v_scale.values(), v_mean = in.v_mean.values();
  const int64_t width = call.width;
  Values weights;
  double sum = 0.0, shift = 0.0;
  const double factor = q_scale[head * call.length + query] * 0.25;
  for (int64_t c = 0; c < width; ++c) {
    shift += in.q.bytes[(head * call.length + query) * width + c] * k_mean[head * width + c] * factor;
  }
  for (int64_t key = 0; key < count; ++key) {
    double dot = 0.0;
    for (int64_t c = 0; c < width; ++c) {
      dot +=
          in.q.bytes[(head * call.length + query) * width + c] * in.k.bytes[(head * call.num_keys + key) * width + c];
    }
    weights.push_back(std::exp(dot * factor * k_scale[head * ((call.num_keys + 2) / 3) + key / 3]));
    sum += weights.back();
  }
  *lse = std::log(sum) + shift;
  for (int64_t c = 0; c < width; ++c) {
    out[c] = count ? v_mean[head * width + c] : 0.0;
    for (int64_t key = 0; key < count; ++key) {
      const int64_t block = call.v_block ? key / call.v_block : 0;
      out[c] += weights[key] / sum * in.v.bytes[(head * width + c) * call.positions() + key] *
                v_scale[(head * call.v_blocks() + block) * width + c];
    }
  }
}

wk_status run(const Call &call, const Inputs &in, const Tensor &out, const Tensor &lse, const wk_tensor *lengths) {
  return wk_attention_8bit(&out.view, &lse.view, &in.q.view, &in.q_scale.view, &in.k.view, &in.k_scale.view,
                           &in.k_mean.view, &in.v.view, &in.v_scale.view, &in.v_mean.view, lengths, nullptr, nullptr, 1,
                           3, call.v_block, 0.25, nullptr);
}

void test_call(const Call &call, int32_t dtype) {
  const Inputs in(call);
  const Tensor out({kSamples, call.length, kHeads, call.width}, dtype),
      lse({kSamples, kHeads, call.length}, WK_FLOAT32);
  int32_t lengths[kSamples] = {static_cast<int32_t>(call.num_keys), 0};
  const int64_t shape[] = {kSamples};
  const wk_tensor seen = wk_contiguous(lengths, WK_INT32, 1, shape);
  EXPECT_OK(run(call, in, out, lse, &seen));
  const Values found = out.values(), sums = lse.values();
  Values row(call.width);
  double wanted;
  for (int64_t head = 0; head < kBatch; ++head) {
    for (int64_t query = 0; query < call.length; ++query) {
      attend(call, in, head, query, lengths[head / kHeads], row.data(), &wanted);
      const double got = sums[head * call.length + query];
      EXPECT(got == wanted || std::fabs(got - wanted) <= 1e-4);
      const int64_t at = ((head / kHeads * call.length + query) * kHeads + head % kHeads) * call.width;
      const Values got_row(found.begin() + at, found.begin() + at + call.width);
      EXPECT_NEAR(got_row, row, 3e-2);
    }
  }
  lengths[1] = static_cast<int32_t>(call.num_keys) + 1;
  EXPECT_REFUSED(run(call, in, out, lse, &seen), WK_ERROR_INVALID_ARGUMENT, "k_lengths must lie in [0, ");
}

// Nothing is launched: a library without CUDA says so, one with it wants heads of 128 first.
void test_cuda_refusals() {
  const Call call = {3, 40, 64, 0};
  Inputs in(call);
  Tensor out({kSamples, call.length, kHeads, call.width}, WK_FLOAT32), lse({kSamples, kHeads, call.length}, WK_FLOAT32);
  in.v.view.device = WK_CUDA;
  EXPECT_REFUSED(run(call, in, out, lse, nullptr), WK_ERROR_INVALID_ARGUMENT, "device of q");
  for (Codes *each : {&in.q, &in.k, &in.v}) each->view.device = WK_CUDA;
  for (Tensor *each : {&in.q_scale, &in.k_scale, &in.k_mean, &in.v_scale, &in.v_mean, &out, &lse}) {
    each->view.device = WK_CUDA;
  }
  EXPECT_REFUSED(run(call, in, out, lse, nullptr), WK_ERROR_INVALID_ARGUMENT, "v must be float8");
  in.v.view.dtype = WK_FLOAT8_E4M3;
  if (std::strstr(wk_build_info(), "cuda: off")) {
    EXPECT_REFUSED(run(call, in, out, lse, nullptr), WK_ERROR_UNSUPPORTED, "built without CUDA");
  } else {
    EXPECT_REFUSED(run(call, in, out, lse, nullptr), WK_ERROR_INVALID_ARGUMENT, "H must be 128 on CUDA, got 64");
  }
}

}  // namespace

void test_attention_8bit() {
  test_cuda_refusals();
  for (int32_t dtype : kDtypes) {
    test_call({11, 37, 32, 0}, dtype);
    test_call({1, 1, 16, 256}, dtype);
    test_call({3, 300, 64, 128}, dtype);
    test_call({70, 270, 16, 256}, dtype);
  }
  const Call narrow = {2, 5, 8, 0};
  const Inputs in(narrow);
  const Tensor out({kSamples, 2, kHeads, 8}, WK_FLOAT32), lse({kSamples, kHeads, 2}, WK_FLOAT32);
  EXPECT_REFUSED(run(narrow, in, out, lse, nullptr), WK_ERROR_INVALID_ARGUMENT, "H must be a multiple of 16, got 8");
}
