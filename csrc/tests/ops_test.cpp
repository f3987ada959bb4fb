// SPDX-License-Identifier: Apache-2.0
// Every entry point against plain double-precision loops, on sizes that leave every kind of remainder. Values on real
// shapes are the business of the Python conformance suite; this one is about memory, arguments and the C contract.
#include "support.h"

void test_8bit_ops();         // ops_8bit_test.cpp
void test_attention();        // attention_test.cpp
void test_attention_8bit();   // attention_8bit_test.cpp
void test_causal_conv3d();    // causal_conv3d_test.cpp
void test_merge_attention();  // merge_attention_test.cpp

namespace {

Values rms_norm(const Values &x, const Values &weight) {
  const size_t width = weight.size();
  Values out(x.size());
  for (size_t row = 0; row < x.size(); row += width) {
    double squares = 0;
    for (size_t i = 0; i < width; ++i) squares += x[row + i] * x[row + i];
    for (size_t i = 0; i < width; ++i) out[row + i] = x[row + i] / std::sqrt(squares / width + kEps) * weight[i];
  }
  return out;
}

void test_rms_norm() {
  for (int32_t dtype : kDtypes) {
    for (int64_t width : {1, 2, 7, 16, 31, 67}) {
      const Tensor x({2, 3, width}, dtype, numbers(6 * width, 1)), weight({width}, dtype, numbers(width, 2));
      const Tensor grad_out({2, 3, width}, dtype, numbers(6 * width, 3));
      const Tensor out({2, 3, width}, dtype), grad_x({2, 3, width}, dtype), grad_weight({width}, WK_FLOAT32);
      EXPECT_OK(wk_rms_norm(&out.view, &x.view, &weight.view, kEps, nullptr));
      EXPECT_NEAR(out.values(), rms_norm(x.values(), weight.values()), tolerance(dtype));
      EXPECT_OK(
          wk_rms_norm_backward(&grad_x.view, &grad_weight.view, &grad_out.view, &x.view, &weight.view, kEps, nullptr));
      const auto of_x = [&](const Values &v) { return rms_norm(v, weight.values()); };
      const auto of_weight = [&](const Values &v) { return rms_norm(x.values(), v); };
      if (width > 1)
        EXPECT_NEAR(grad_x.values(), differences(of_x, x.values(), grad_out.values()), tolerance(dtype) * 2);
      EXPECT_NEAR(grad_weight.values(), differences(of_weight, weight.values(), grad_out.values()), tolerance(dtype));
    }
  }
}

void test_rms_norm_memory() {
  // Every second row of a wider tensor, and the result in its place.
  const Tensor whole({4, 10}, WK_FLOAT32, numbers(40, 4)), weight({5}, WK_FLOAT32, numbers(5, 5));
  wk_tensor rows = whole.view;
  rows.shape[0] = 2;
  rows.shape[1] = 5;
  rows.stride[0] = 20;
  const Values before = whole.values();
  Values picked(before.begin(), before.begin() + 5);
  picked.insert(picked.end(), before.begin() + 20, before.begin() + 25);
  const Values wanted = rms_norm(picked, weight.values());
  EXPECT_OK(wk_rms_norm(&rows, &rows, &weight.view, kEps, nullptr));
  Values expected = before;
  for (size_t i = 0; i < 5; ++i) {
    expected[i] = wanted[i];
    expected[20 + i] = wanted[5 + i];
  }
  EXPECT_NEAR(whole.values(), expected, 1e-6);

  // Large enough for huge pages and for several threads; the same with one.
  const int64_t count = 1100, width = 1024;
  const Tensor x({count, width}, WK_FLOAT32, numbers(count * width, 6)), ones({width}, WK_FLOAT32, Values(width, 1.0));
  const Tensor out({count, width}, WK_FLOAT32), again({count, width}, WK_FLOAT32), first({width}, WK_FLOAT32),
      second({width}, WK_FLOAT32);
  wk_set_num_threads(3);
  EXPECT_OK(wk_rms_norm(&out.view, &x.view, &ones.view, kEps, nullptr));
  EXPECT_OK(wk_rms_norm_backward(nullptr, &first.view, &out.view, &x.view, &ones.view, kEps, nullptr));
  wk_set_num_threads(1);
  EXPECT(wk_num_threads() == 1);
  EXPECT_OK(wk_rms_norm(&again.view, &x.view, &ones.view, kEps, nullptr));
  EXPECT_OK(wk_rms_norm_backward(nullptr, &second.view, &again.view, &x.view, &ones.view, kEps, nullptr));
  wk_set_num_threads(0);
  EXPECT(out.values() == again.values());
  EXPECT(first.values() == second.values());
}

struct Modulation {
  Values scale, shift, weight, bias;
  std::vector<int32_t> index;
};

// x [B, L, D] with R rows; `index` holds B * L entries.
Values layer_norm_modulate(const Values &x, const Modulation &m, size_t length, size_t num_rows, size_t width) {
  Values out(x.size());
  for (size_t token = 0; token < x.size() / width; ++token) {
    const double *row = &x[token * width];
    const size_t table = (token / length * num_rows + static_cast<size_t>(m.index[token])) * width;
    double mean = 0, variance = 0;
    for (size_t i = 0; i < width; ++i) mean += row[i] / width;
    for (size_t i = 0; i < width; ++i) variance += (row[i] - mean) * (row[i] - mean) / width;
    for (size_t i = 0; i < width; ++i) {
      const double affine = (row[i] - mean) / std::sqrt(variance + kEps) * m.weight[i] + m.bias[i];
      out[token * width + i] = affine * (1 + m.scale[table + i]) + m.shift[table + i];
    }
  }
  return out;
}

void test_layer_norm_modulate() {
  const size_t batch = 2, length = 5, num_rows = 3;
  const std::vector<int32_t> index = {0, 1, 2, 1, 0, 2, 2, 2, 0, 1};
  const int64_t index_shape[2] = {2, 5};
  const wk_tensor index_view = wk_contiguous(const_cast<int32_t *>(index.data()), WK_INT32, 2, index_shape);
  for (int32_t dtype : kDtypes) {
    for (size_t width : {3, 16, 37}) {
      const int64_t d = static_cast<int64_t>(width);
      const Tensor x({2, 5, d}, dtype, numbers(10 * d, 1)), grad_out({2, 5, d}, WK_FLOAT32, numbers(10 * d, 2));
      const Tensor scale({2, 3, d}, WK_FLOAT32, numbers(6 * d, 3)), shift({2, 3, d}, dtype, numbers(6 * d, 4));
      const Tensor weight({d}, dtype, numbers(d, 5)), bias({d}, WK_FLOAT32, numbers(d, 6));
      const Tensor out({2, 5, d}, WK_FLOAT32), grad_x({2, 5, d}, dtype);
      const Tensor grad_scale({2, 3, d}, WK_FLOAT32), grad_shift({2, 3, d}, WK_FLOAT32), grad_weight({d}, WK_FLOAT32),
          grad_bias({d}, WK_FLOAT32);
      EXPECT_OK(wk_layer_norm_modulate(&out.view, &x.view, &scale.view, &shift.view, &weight.view, &bias.view,
                                       &index_view, kEps, nullptr));
      const Modulation m = {scale.values(), shift.values(), weight.values(), bias.values(), index};
      const auto run = [&](const Values &v, const Modulation &with) {
        return layer_norm_modulate(v, with, length, num_rows, width);
      };
      EXPECT_NEAR(out.values(), run(x.values(), m), 2e-5);

      EXPECT_OK(wk_layer_norm_modulate_backward(&grad_x.view, &grad_scale.view, &grad_shift.view, &grad_weight.view,
                                                &grad_bias.view, &grad_out.view, &x.view, &scale.view, &shift.view,
                                                &weight.view, &bias.view, &index_view, kEps, nullptr));
      const auto gradient = [&](Values Modulation::*part) {
        const auto f = [&](const Values &v) {
          Modulation changed = m;
          changed.*part = v;
          return run(x.values(), changed);
        };
        return differences(f, m.*part, grad_out.values());
      };
      const auto of_x = [&](const Values &v) { return run(v, m); };
      EXPECT_NEAR(grad_x.values(), differences(of_x, x.values(), grad_out.values()), tolerance(dtype));
      EXPECT_NEAR(grad_scale.values(), gradient(&Modulation::scale), 2e-5);
      EXPECT_NEAR(grad_shift.values(), gradient(&Modulation::shift), 2e-5);
      EXPECT_NEAR(grad_weight.values(), gradient(&Modulation::weight), 2e-5);
      EXPECT_NEAR(grad_bias.values(), gradient(&Modulation::bias), 2e-5);
    }
  }
  EXPECT(batch * length == index.size());
}

void test_gate_residual() {
  const int64_t d = 19;
  const std::vector<int64_t> index = {1, 0, 1, 1, 0, 0};
  const int64_t index_shape[2] = {2, 3};
  const wk_tensor index_view = wk_contiguous(const_cast<int64_t *>(index.data()), WK_INT64, 2, index_shape);
  for (int32_t y_dtype : kDtypes) {
    const Tensor x({2, 3, d}, WK_FLOAT32, numbers(6 * d, 1)), y({2, 3, d}, y_dtype, numbers(6 * d, 2));
    const Tensor gate({2, 2, d}, WK_FLOAT32, numbers(4 * d, 3)), grad_out({2, 3, d}, WK_FLOAT32, numbers(6 * d, 4));
    const Tensor out({2, 3, d}, WK_FLOAT32), grad_x({2, 3, d}, WK_FLOAT32), grad_y({2, 3, d}, y_dtype),
        grad_gate({2, 2, d}, WK_FLOAT32);
    const auto run = [&](const Values &ys, const Values &gates) {
      Values result = x.values();
      for (size_t i = 0; i < result.size(); ++i) {
        const size_t token = i / d, table = (token / 3 * 2 + static_cast<size_t>(index[token])) * d;
        result[i] += ys[i] * gates[table + i % d];
      }
      return result;
    };
    EXPECT_OK(wk_gate_residual(&out.view, &x.view, &y.view, &gate.view, &index_view, nullptr));
    EXPECT_NEAR(out.values(), run(y.values(), gate.values()), 1e-6);
    EXPECT_OK(wk_gate_residual_backward(&grad_x.view, &grad_y.view, &grad_gate.view, &grad_out.view, &y.view,
                                        &gate.view, &index_view, nullptr));
    const auto of_y = [&](const Values &v) { return run(v, gate.values()); };
    const auto of_gate = [&](const Values &v) { return run(y.values(), v); };
    EXPECT(grad_x.values() == grad_out.values());
    EXPECT_NEAR(grad_y.values(), differences(of_y, y.values(), grad_out.values()), tolerance(y_dtype));
    EXPECT_NEAR(grad_gate.values(), differences(of_gate, gate.values(), grad_out.values()), 1e-6);
  }
}

struct Fused {
  Values x, y, gate;
  Modulation norm;
};

// Both results, one after the other.
Values gate_residual_layer_norm_modulate(const Fused &in, size_t length, size_t num_rows, size_t width) {
  Values sum = in.x;
  for (size_t i = 0; i < sum.size(); ++i) {
    const size_t token = i / width;
    const size_t table = (token / length * num_rows + static_cast<size_t>(in.norm.index[token])) * width;
    sum[i] += in.y[i] * in.gate[table + i % width];
  }
  const Values normed = layer_norm_modulate(sum, in.norm, length, num_rows, width);
  sum.insert(sum.end(), normed.begin(), normed.end());
  return sum;
}

void test_gate_residual_layer_norm_modulate() {
  const std::vector<int32_t> index = {0, 1, 1, 1, 0, 0};
  const int64_t index_shape[2] = {2, 3};
  const wk_tensor index_view = wk_contiguous(const_cast<int32_t *>(index.data()), WK_INT32, 2, index_shape);
  for (int32_t y_dtype : kDtypes) {
    for (int64_t d : {1, 3, 16, 37}) {
      const Tensor x({2, 3, d}, WK_FLOAT32, numbers(6 * d, 1)), y({2, 3, d}, y_dtype, numbers(6 * d, 2));
      const Tensor gate({2, 2, d}, WK_FLOAT32, numbers(4 * d, 3)), scale({2, 2, d}, WK_FLOAT32, numbers(4 * d, 4)),
          shift({2, 2, d}, y_dtype, numbers(4 * d, 5));
      const Tensor weight({d}, WK_FLOAT32, numbers(d, 6)), bias({d}, WK_FLOAT32, numbers(d, 7));
      const Tensor grad_sum({2, 3, d}, WK_FLOAT32, numbers(6 * d, 8)),
          grad_out({2, 3, d}, WK_FLOAT32, numbers(6 * d, 9));
      const Tensor sum({2, 3, d}, WK_FLOAT32), out({2, 3, d}, WK_FLOAT32);
      EXPECT_OK(wk_gate_residual_layer_norm_modulate(&sum.view, &out.view, &x.view, &y.view, &gate.view, &scale.view,
                                                     &shift.view, &weight.view, &bias.view, &index_view, kEps,
                                                     nullptr));
      const Fused in = {
          x.values(),
          y.values(),
          gate.values(),
          {scale.values(), shift.values(), weight.values(), bias.values(), index},
      };
      const auto run = [&](const Fused &with) {
        return gate_residual_layer_norm_modulate(with, 3, 2, static_cast<size_t>(d));
      };
      Values results = sum.values(), normed = out.values();
      results.insert(results.end(), normed.begin(), normed.end());
      EXPECT_NEAR(results, run(in), 2e-5);

      // Bit for bit what the two functions give, each alone.
      const Tensor alone({2, 3, d}, WK_FLOAT32), normed_alone({2, 3, d}, WK_FLOAT32);
      EXPECT_OK(wk_gate_residual(&alone.view, &x.view, &y.view, &gate.view, &index_view, nullptr));
      EXPECT_OK(wk_layer_norm_modulate(&normed_alone.view, &alone.view, &scale.view, &shift.view, &weight.view,
                                       &bias.view, &index_view, kEps, nullptr));
      EXPECT(alone.values() == sum.values());
      EXPECT(normed_alone.values() == out.values());

      const Tensor grad_x({2, 3, d}, WK_FLOAT32), grad_y({2, 3, d}, y_dtype), grad_gate({2, 2, d}, WK_FLOAT32),
          grad_scale({2, 2, d}, WK_FLOAT32), grad_shift({2, 2, d}, WK_FLOAT32), grad_weight({d}, WK_FLOAT32),
          grad_bias({d}, WK_FLOAT32);
      EXPECT_OK(wk_gate_residual_layer_norm_modulate_backward(
          &grad_x.view, &grad_y.view, &grad_gate.view, &grad_scale.view, &grad_shift.view, &grad_weight.view,
          &grad_bias.view, &grad_sum.view, &grad_out.view, &y.view, &sum.view, &gate.view, &scale.view, &shift.view,
          &weight.view, &bias.view, &index_view, kEps, nullptr));
      if (d == 1) continue;  // a width of 1 has no variance: eps alone, and no difference quotient
      Values cotangent = grad_sum.values(), rest = grad_out.values();
      cotangent.insert(cotangent.end(), rest.begin(), rest.end());
      const auto gradient = [&](const std::function<Values &(Fused &)> &part) {
        Fused changed = in;
        const Values start = part(changed);
        const auto f = [&](const Values &v) {
          part(changed) = v;
          return run(changed);
        };
        return differences(f, start, cotangent);
      };
      EXPECT_NEAR(grad_x.values(), gradient([](Fused &each) -> Values & { return each.x; }), tolerance(WK_FLOAT32));
      EXPECT_NEAR(grad_y.values(), gradient([](Fused &each) -> Values & { return each.y; }), tolerance(y_dtype));
      EXPECT_NEAR(grad_gate.values(), gradient([](Fused &each) -> Values & { return each.gate; }),
                  tolerance(WK_FLOAT32));
      EXPECT_NEAR(grad_scale.values(), gradient([](Fused &each) -> Values & { return each.norm.scale; }), 2e-5);
      EXPECT_NEAR(grad_shift.values(), gradient([](Fused &each) -> Values & { return each.norm.shift; }), 2e-5);
      EXPECT_NEAR(grad_weight.values(), gradient([](Fused &each) -> Values & { return each.norm.weight; }), 2e-5);
      EXPECT_NEAR(grad_bias.values(), gradient([](Fused &each) -> Values & { return each.norm.bias; }), 2e-5);
    }
  }
}

void test_gate_residual_layer_norm_modulate_without() {
  // No gate: a plain sum, in the place of x. No gradient of either result: zeros.
  const Tensor x({2, 3, 19}, WK_FLOAT32, numbers(114, 1)), y({2, 3, 19}, WK_BFLOAT16, numbers(114, 2));
  const Tensor ones({2, 1, 19}, WK_FLOAT32, Values(38, 1.0)), sum({2, 3, 19}, WK_FLOAT32);
  EXPECT_OK(wk_gate_residual(&sum.view, &x.view, &y.view, &ones.view, nullptr, nullptr));
  const Tensor out({2, 3, 19}, WK_BFLOAT16);
  EXPECT_OK(wk_gate_residual_layer_norm_modulate(&x.view, &out.view, &x.view, &y.view, nullptr, nullptr, nullptr,
                                                 nullptr, nullptr, nullptr, kEps, nullptr));
  EXPECT(x.values() == sum.values());

  const Tensor grad({2, 3, 19}, WK_FLOAT32, numbers(114, 3)), grad_x({2, 3, 19}, WK_FLOAT32),
      grad_y({2, 3, 19}, WK_BFLOAT16);
  EXPECT_OK(wk_gate_residual_layer_norm_modulate_backward(&grad_x.view, nullptr, nullptr, nullptr, nullptr, nullptr,
                                                          nullptr, &grad.view, nullptr, &y.view, &sum.view, nullptr,
                                                          nullptr, nullptr, nullptr, nullptr, nullptr, kEps, nullptr));
  EXPECT(grad_x.values() == grad.values());
  const Tensor alone({2, 3, 19}, WK_FLOAT32);
  EXPECT_OK(wk_layer_norm_modulate_backward(&alone.view, nullptr, nullptr, nullptr, nullptr, &grad.view, &sum.view,
                                            nullptr, nullptr, nullptr, nullptr, nullptr, kEps, nullptr));
  EXPECT_OK(wk_gate_residual_layer_norm_modulate_backward(
      &grad_x.view, &grad_y.view, nullptr, nullptr, nullptr, nullptr, nullptr, nullptr, &grad.view, &y.view, &sum.view,
      nullptr, nullptr, nullptr, nullptr, nullptr, nullptr, kEps, nullptr));
  EXPECT(grad_x.values() == alone.values());
  EXPECT_NEAR(grad_y.values(), alone.values(), tolerance(WK_BFLOAT16));
}

void test_rms_norm_rope() {
  const int64_t num_heads = 3, head_width = 14, width = 42, length = 13, grid[3] = {2, 2, 3};
  const int64_t pairs[3] = {1, 2, 4};
  std::vector<Tensor> tables;
  tables.reserve(3);
  for (int k = 0; k < 3; ++k)
    tables.emplace_back(std::vector<int64_t>{5, pairs[k], 2}, WK_FLOAT32, numbers(10 * pairs[k], 7 + k));
  const auto run = [&](const Values &x, const Values &weight) {
    Values out = rms_norm(x, weight);
    for (int64_t token = 0; token < 2 * length; ++token) {
      const int64_t l = token % length, position[3] = {l / 6, l / 3 % 2, l % 3};
      if (l >= 12) continue;
      for (int64_t pair = 0; pair < width / 2; ++pair) {
        int64_t at = pair % (head_width / 2);
        int k = 0;
        while (at >= pairs[k]) at -= pairs[k++];
        const Values table = tables[static_cast<size_t>(k)].values();
        const size_t entry = static_cast<size_t>((position[k] * pairs[k] + at) * 2);
        double &a = out[static_cast<size_t>(token * width + 2 * pair)], &b = (&a)[1];
        const double turned = a * table[entry] - b * table[entry + 1];
        b = a * table[entry + 1] + b * table[entry];
        a = turned;
      }
    }
    return out;
  };
  for (int32_t dtype : kDtypes) {
    const Tensor x({2, length, width}, dtype, numbers(2 * length * width, 1)),
        weight({width}, dtype, numbers(width, 2));
    const Tensor grad_out({2, length, num_heads, head_width}, dtype, numbers(2 * length * width, 3));
    const Tensor out({2, length, num_heads, head_width}, dtype), grad_x({2, length, width}, dtype),
        grad_weight({width}, dtype);
    EXPECT_OK(wk_rms_norm_rope(&out.view, &x.view, &weight.view, &tables[0].view, &tables[1].view, &tables[2].view,
                               num_heads, grid, kEps, nullptr));
    EXPECT_NEAR(out.values(), run(x.values(), weight.values()), tolerance(dtype));
    EXPECT_OK(wk_rms_norm_rope_backward(&grad_x.view, &grad_weight.view, &grad_out.view, &x.view, &weight.view,
                                        &tables[0].view, &tables[1].view, &tables[2].view, num_heads, grid, kEps,
                                        nullptr));
    const auto of_weight = [&](const Values &v) { return run(x.values(), v); };
    EXPECT_NEAR(grad_weight.values(), differences(of_weight, weight.values(), grad_out.values()), tolerance(dtype));
    if (dtype != WK_FLOAT32) continue;  // 1092 forwards: once is enough
    const auto of_x = [&](const Values &v) { return run(v, weight.values()); };
    EXPECT_NEAR(grad_x.values(), differences(of_x, x.values(), grad_out.values()), tolerance(dtype));
  }
}

// x [B, C, S]; `at(b, c, s)` says where an element lies.
using Place = std::function<size_t(size_t, size_t, size_t)>;
Values channel_rms_norm_silu(const Values &x, const Values &weight, size_t positions, bool has_silu, const Place &at) {
  const size_t channels = weight.size(), batch = x.size() / channels / positions;
  Values out(x.size());
  for (size_t b = 0; b < batch; ++b) {
    for (size_t s = 0; s < positions; ++s) {
      double squares = 0;
      for (size_t c = 0; c < channels; ++c) squares += x[at(b, c, s)] * x[at(b, c, s)];
      for (size_t c = 0; c < channels; ++c) {
        const double norm = std::fmax(std::sqrt(squares), 1e-12);
        const double value = x[at(b, c, s)] / norm * std::sqrt(static_cast<double>(channels)) * weight[c];
        out[at(b, c, s)] = has_silu ? value / (1 + std::exp(-value)) : value;
      }
    }
  }
  return out;
}

void test_channel_rms_norm_silu(int32_t dtype, bool is_rows, bool has_silu) {
  const int64_t batch = 2, channels = 5, rows = 3, columns = 7, positions = rows * columns;
  const std::vector<int64_t> shape = {batch, channels, rows, columns};
  const auto laid_out = [&](wk_tensor view) {
    const int64_t stride[4] = {channels * positions, 1, columns * channels, channels};
    if (is_rows) std::memcpy(view.stride, stride, sizeof stride);
    return view;
  };
  const Place at = [&](size_t b, size_t c, size_t s) {
    const size_t inside = is_rows ? s * channels + c : c * positions + s;
    return b * channels * positions + inside;
  };
  Values start = numbers(batch * channels * positions, 1);
  for (size_t c = 0; c < static_cast<size_t>(channels); ++c) start[at(1, c, 2)] = 0.0;  // a norm of 0
  const Tensor x(shape, dtype, start), weight({channels}, dtype, numbers(channels, 2));
  const Tensor grad_out(shape, dtype, numbers(batch * channels * positions, 3));
  const Tensor out(shape, dtype), grad_x(shape, dtype), grad_weight({channels}, WK_FLOAT32);
  const wk_tensor x_view = laid_out(x.view), out_view = laid_out(out.view), grad_out_view = laid_out(grad_out.view),
                  grad_x_view = laid_out(grad_x.view);
  const auto run = [&](const Values &v, const Values &w) {
    return channel_rms_norm_silu(v, w, static_cast<size_t>(positions), has_silu, at);
  };
  EXPECT_OK(wk_channel_rms_norm_silu(&out_view, &x_view, &weight.view, has_silu, nullptr));
  EXPECT_NEAR(out.values(), run(x.values(), weight.values()), tolerance(dtype));
  EXPECT_OK(wk_channel_rms_norm_silu_backward(&grad_x_view, &grad_weight.view, &grad_out_view, &x_view, &weight.view,
                                              has_silu, nullptr));
  const auto of_weight = [&](const Values &v) { return run(x.values(), v); };
  EXPECT_NEAR(grad_weight.values(), differences(of_weight, weight.values(), grad_out.values()), tolerance(dtype));
  const auto of_x = [&](const Values &v) { return run(v, weight.values()); };
  Values wanted = differences(of_x, x.values(), grad_out.values()), got = grad_x.values();
  for (size_t c = 0; c < static_cast<size_t>(channels); ++c) {
    EXPECT(std::isfinite(got[at(1, c, 2)]));  // 1e12 times what is elsewhere, and no difference quotient there
    wanted[at(1, c, 2)] = got[at(1, c, 2)] = 0.0;
  }
  EXPECT_NEAR(got, wanted, tolerance(dtype));
}

void test_guided_update() {
  const double of[4] = {0.9, -0.1, 0.15, 0.05}, by[3] = {0.8, -0.05, 0.25};
  for (int32_t dtype : kDtypes) {
    for (int64_t count : {1, 16, 37}) {
      const Tensor positive({count}, dtype, numbers(count, 1)), negative({count}, dtype, numbers(count, 2));
      const Tensor latents({count}, WK_FLOAT32, numbers(count, 3)), base({count}, WK_FLOAT32, numbers(count, 4));
      const Tensor older({count}, WK_FLOAT32, numbers(count, 5)), newer({count}, WK_FLOAT32, numbers(count, 6));
      const Tensor result({count}, WK_FLOAT32), denoised({count}, WK_FLOAT32), start({count}, WK_FLOAT32);
      const auto step = [&](bool is_full) {
        return wk_guided_update(&result.view, &denoised.view, is_full ? &start.view : nullptr, &positive.view,
                                is_full ? &negative.view : nullptr, &latents.view, is_full ? &base.view : nullptr,
                                is_full ? &older.view : nullptr, is_full ? &newer.view : nullptr, 5.0, 0.5, of, by,
                                nullptr);
      };
      for (bool is_full : {true, false}) {
        EXPECT_OK(step(is_full));
        Values wanted[3];
        for (size_t i = 0; i < static_cast<size_t>(count); ++i) {
          const double away = negative.values()[i], toward = positive.values()[i];
          const double clean = latents.values()[i] - 0.5 * (is_full ? away + 5.0 * (toward - away) : toward);
          const double past = is_full ? newer.values()[i] : 0.0;
          const double from = is_full
                                  ? of[0] * base.values()[i] + of[1] * older.values()[i] + of[2] * past + of[3] * clean
                                  : latents.values()[i];
          wanted[0].push_back(by[0] * from + by[1] * past + by[2] * clean);
          wanted[1].push_back(clean);
          wanted[2].push_back(from);
        }
        EXPECT_NEAR(result.values(), wanted[0], 1e-5);
        EXPECT_NEAR(denoised.values(), wanted[1], 1e-5);
        if (is_full) EXPECT_NEAR(start.values(), wanted[2], 1e-5);
      }
    }
  }
}

void test_empty() {
  const Tensor x({0, 4}, WK_FLOAT32), weight({4}, WK_FLOAT32, numbers(4, 1)), grad_weight({4}, WK_FLOAT32);
  EXPECT_OK(wk_rms_norm(&x.view, &x.view, &weight.view, kEps, nullptr));
  EXPECT_OK(wk_rms_norm_backward(&x.view, &grad_weight.view, &x.view, &x.view, &weight.view, kEps, nullptr));
  EXPECT(grad_weight.values() == Values(4, 0.0));
  const Tensor tokens({2, 0, 4}, WK_FLOAT32), table({2, 1, 4}, WK_FLOAT32, numbers(8, 2)), grad({2, 1, 4}, WK_FLOAT32);
  EXPECT_OK(wk_layer_norm_modulate(&tokens.view, &tokens.view, &table.view, &table.view, nullptr, nullptr, nullptr,
                                   kEps, nullptr));
  EXPECT_OK(wk_gate_residual(&tokens.view, &tokens.view, &tokens.view, &table.view, nullptr, nullptr));
  EXPECT_OK(wk_gate_residual_backward(&tokens.view, &tokens.view, &grad.view, &tokens.view, &tokens.view, &table.view,
                                      nullptr, nullptr));
  EXPECT(grad.values() == Values(8, 0.0));
  const Tensor grad_gate({2, 1, 4}, WK_FLOAT32);
  EXPECT_OK(wk_gate_residual_layer_norm_modulate(&tokens.view, &tokens.view, &tokens.view, &tokens.view, &table.view,
                                                 nullptr, nullptr, nullptr, nullptr, nullptr, kEps, nullptr));
  EXPECT_OK(wk_gate_residual_layer_norm_modulate_backward(
      &tokens.view, &tokens.view, &grad_gate.view, nullptr, nullptr, nullptr, nullptr, &tokens.view, &tokens.view,
      &tokens.view, &tokens.view, &table.view, nullptr, nullptr, nullptr, nullptr, nullptr, kEps, nullptr));
  EXPECT(grad_gate.values() == Values(8, 0.0));
  const Tensor narrow({2, 0}, WK_FLOAT32), nothing({0}, WK_FLOAT32);
  EXPECT_OK(wk_rms_norm(&narrow.view, &narrow.view, &nothing.view, kEps, nullptr));
  const Tensor values({2, 0, 2, 3}, WK_FLOAT32), scales({2, 2, 0, 3}, WK_FLOAT32), mean({2, 2, 3}, WK_FLOAT32);
  const Codes codes({2, 2, 3, 0});
  EXPECT_OK(wk_quantize_values(&codes.view, &scales.view, &mean.view, &values.view, 0, 1, 1, nullptr));
  EXPECT(mean.values() == Values(12, 0.0));
  const Tensor keys({2, 0, 2, 3}, WK_FLOAT32), key_scales({2, 2, 0}, WK_FLOAT32), key_mean({2, 2, 3}, WK_FLOAT32);
  const Codes key_codes({2, 2, 0, 3});
  EXPECT_OK(wk_quantize_heads(&key_codes.view, &key_scales.view, &key_mean.view, &keys.view, 16, 1, nullptr));
  EXPECT(key_mean.values() == Values(12, 0.0));
  const Tensor image({1, 4, 0, 3}, WK_FLOAT32), channels({4}, WK_FLOAT32, numbers(4, 3));
  EXPECT_OK(wk_channel_rms_norm_silu(&image.view, &image.view, &channels.view, 1, nullptr));
  EXPECT_OK(wk_channel_rms_norm_silu_backward(&image.view, &grad_weight.view, &image.view, &image.view, &channels.view,
                                              1, nullptr));
  EXPECT(grad_weight.values() == Values(4, 0.0));
}

void test_refusals() {
  const Tensor x({2, 3, 4}, WK_FLOAT32, numbers(24, 1)), half({2, 3, 4}, WK_BFLOAT16, numbers(24, 1));
  const Tensor weight({4}, WK_FLOAT32, numbers(4, 2)), wrong({5}, WK_FLOAT32, numbers(5, 2));
  const Tensor table({2, 2, 4}, WK_FLOAT32, numbers(16, 3));
  const wk_status invalid = WK_ERROR_INVALID_ARGUMENT;
  EXPECT_REFUSED(wk_rms_norm(nullptr, &x.view, &weight.view, kEps, nullptr), invalid, "[rms_norm] out must be given");
  EXPECT_REFUSED(wk_rms_norm(&x.view, &x.view, &wrong.view, kEps, nullptr), invalid,
                 "[rms_norm] weight must have shape (4,), got (5,)");
  EXPECT_REFUSED(wk_rms_norm(&half.view, &x.view, &weight.view, kEps, nullptr), invalid,
                 "dtype of x float32, got bfloat16");
  wk_tensor odd = x.view;
  odd.dtype = WK_FLOAT64;
  EXPECT_REFUSED(wk_rms_norm(&odd, &odd, &weight.view, kEps, nullptr), invalid, "got float64");
  odd = x.view;
  odd.stride[2] = 2;
  EXPECT_REFUSED(wk_rms_norm(&x.view, &odd, &weight.view, kEps, nullptr), invalid, "contiguous last dimension");
  odd = x.view;
  odd.data = nullptr;
  EXPECT_REFUSED(wk_rms_norm(&x.view, &odd, &weight.view, kEps, nullptr), invalid, "null pointer");
  odd = x.view;
  odd.device = WK_CUDA;
  EXPECT_REFUSED(wk_rms_norm(&x.view, &odd, &weight.view, kEps, nullptr), invalid, "device of x");
  EXPECT_REFUSED(wk_gate_residual(&odd, &odd, &odd, &odd, nullptr, nullptr), WK_ERROR_UNSUPPORTED, "no CUDA kernel");

  EXPECT_REFUSED(
      wk_layer_norm_modulate(&x.view, &x.view, &table.view, nullptr, nullptr, nullptr, nullptr, kEps, nullptr), invalid,
      "scale and shift must come together");
  EXPECT_REFUSED(wk_gate_residual(&x.view, &x.view, &x.view, &table.view, nullptr, nullptr), invalid,
                 "index must be given when there are 2 modulation rows");
  const int32_t entries[6] = {0, 1, 0, 1, 2, 0};
  const int64_t shape[2] = {2, 3};
  const wk_tensor index = wk_contiguous(const_cast<int32_t *>(entries), WK_INT32, 2, shape);
  EXPECT_REFUSED(wk_gate_residual(&x.view, &x.view, &x.view, &table.view, &index, nullptr), invalid,
                 "index must lie in [0, 2), got 2 at (1, 1)");

  const Tensor row({2, 1, 4}, WK_FLOAT32, numbers(8, 3));
  const auto fused = [&](const Tensor &sum, const Tensor &gate, const Tensor &scale) {
    return wk_gate_residual_layer_norm_modulate(&sum.view, &x.view, &x.view, &half.view, &gate.view, &scale.view,
                                                &scale.view, nullptr, nullptr, nullptr, kEps, nullptr);
  };
  EXPECT_REFUSED(fused(half, row, row), invalid, "x must have the dtype of sum bfloat16, got float32");
  EXPECT_REFUSED(fused(x, table, row), invalid, "gate must have shape (2, 1, 4), got (2, 2, 4)");
  EXPECT_REFUSED(fused(x, row, table), invalid, "index must be given when there are 2 modulation rows");
  EXPECT_REFUSED(fused(x, weight, row), invalid, "gate must have 3 dimensions, got 1");

  const Tensor freqs({2, 1, 2}, WK_FLOAT32, numbers(4, 4)), none({1, 0, 2}, WK_FLOAT32),
      heads({2, 3, 2, 2}, WK_FLOAT32);
  const int64_t tall[3] = {3, 1, 1}, fitting[3] = {2, 1, 1};
  const auto rope = [&](int64_t num_heads, const int64_t *grid) {
    return wk_rms_norm_rope(&heads.view, &x.view, &weight.view, &freqs.view, &none.view, &none.view, num_heads, grid,
                            kEps, nullptr);
  };
  EXPECT_OK(rope(2, fitting));
  EXPECT_REFUSED(rope(3, fitting), invalid, "num_heads must divide");
  EXPECT_REFUSED(rope(2, tall), invalid, "grid must fit the tables");
  EXPECT_REFUSED(rope(2, nullptr), invalid, "grid must be given");

  const Tensor image({2, 4, 3, 3}, WK_FLOAT32, numbers(72, 5));
  wk_tensor crossed = image.view;
  crossed.stride[2] = 1;
  crossed.stride[3] = 3;
  EXPECT_REFUSED(wk_channel_rms_norm_silu(&image.view, &crossed, &weight.view, 1, nullptr), WK_ERROR_UNSUPPORTED,
                 "x must be contiguous in space");

  const Tensor line({3}, WK_FLOAT32, numbers(3, 6));
  const double weights[4] = {1.0, 0.0, 0.0, 0.0};
  EXPECT_REFUSED(wk_guided_update(&line.view, &line.view, nullptr, &line.view, nullptr, &line.view, &line.view, nullptr,
                                  nullptr, 1.0, 0.5, weights, weights, nullptr),
                 invalid, "start must come with base");
  EXPECT_REFUSED(wk_guided_update(&line.view, &line.view, nullptr, &line.view, nullptr, &x.view, nullptr, nullptr,
                                  nullptr, 1.0, 0.5, weights, weights, nullptr),
                 invalid, "latents must have 1 dimension");
  EXPECT_REFUSED(wk_cpu_isa(nullptr), invalid, "name must not be NULL");
}

int test_unknown_isa() {
  const char *name = nullptr;
  const Tensor x({1, 4}, WK_FLOAT32, numbers(4, 1)), weight({4}, WK_FLOAT32, numbers(4, 2));
  EXPECT_REFUSED(wk_cpu_isa(&name), WK_ERROR_INVALID_ARGUMENT, "got sse9");
  EXPECT_REFUSED(wk_rms_norm(&x.view, &x.view, &weight.view, kEps, nullptr), WK_ERROR_INVALID_ARGUMENT, "got sse9");
  return 0;
}

}  // namespace

// The argument names the instruction set that must run.
int main(int argc, char **argv) {
  const char *wanted = argc > 1 ? argv[1] : nullptr;
  if (wanted && std::strcmp(wanted, "unknown") == 0) return test_unknown_isa();
  const char *isa = nullptr;
  const wk_status status = wk_cpu_isa(&isa);
  if (status == WK_ERROR_UNSUPPORTED) {
    std::printf("skipped: %s\n", wk_last_error());
    return 77;
  }
  EXPECT(status == WK_OK);
  EXPECT(!wanted || std::strcmp(isa, wanted) == 0);
  test_rms_norm();
  test_rms_norm_memory();
  test_layer_norm_modulate();
  test_gate_residual();
  test_gate_residual_layer_norm_modulate();
  test_gate_residual_layer_norm_modulate_without();
  test_rms_norm_rope();
  for (int32_t dtype : kDtypes) {
    for (int variant = 0; variant < 4; ++variant) test_channel_rms_norm_silu(dtype, variant & 1, variant & 2);
  }
  test_guided_update();
  test_8bit_ops();
  test_attention();
  test_attention_8bit();
  test_causal_conv3d();
  test_merge_attention();
  test_empty();
  test_refusals();
  std::printf("ran on %s with %s\n", isa, wk_build_info());
  return 0;
}
