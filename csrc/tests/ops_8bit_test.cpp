// SPDX-License-Identifier: Apache-2.0
// The entry points that make or read 8-bit codes, as ops_test.cpp does the others.
#include "support.h"

namespace {

void test_quantize_rows() {
  for (int32_t dtype : kDtypes) {
    for (int64_t width : {1, 2, 7, 16, 31, 67}) {
      const Tensor x({5, width}, dtype, numbers(5 * width, 7)), scale({5}, WK_FLOAT32);
      Codes codes({5, width});
      EXPECT_OK(wk_quantize_rows(&codes.view, &scale.view, &x.view, nullptr));
      const Values values = x.values(), scales = scale.values();
      for (size_t i = 0; i < values.size(); ++i) {
        const double row_scale = scales[i / static_cast<size_t>(width)];
        EXPECT(std::fabs(codes.bytes[i] * row_scale - values[i]) <= 0.5001 * row_scale);
      }
      Codes narrow({5, width}, WK_FLOAT8_E4M3);
      EXPECT_OK(wk_quantize_rows(&narrow.view, &scale.view, &x.view, nullptr));
    }
  }
}

Values multiply(const Codes &x, const Codes &weight, size_t width) {
  const size_t rows = x.bytes.size() / width, columns = weight.bytes.size() / width;
  Values sums(rows * columns);
  for (size_t i = 0; i < sums.size(); ++i) {
    const int8_t *row = &x.bytes[i / columns * width], *column = &weight.bytes[i % columns * width];
    for (size_t k = 0; k < width; ++k) sums[i] += row[k] * column[k];
  }
  return sums;
}

void test_linear_8bit() {
  for (int64_t width : {1, 4, 7, 64, 67}) {
    for (int64_t columns : {1, 16, 19, 61}) {
      constexpr int64_t kRows = 11;
      const Codes x({1, kRows, width}), weight({columns, width}, WK_INT8, -60);
      Codes packed({(columns + 15) / 16, (width + 3) / 4, 16, 4});
      EXPECT_OK(wk_pack_linear_8bit(&packed.view, &weight.view));
      const Tensor x_scale({1, kRows}, WK_FLOAT32, numbers(kRows, 1)),
          weight_scale({columns}, WK_FLOAT32, numbers(columns, 2)), bias({columns}, WK_FLOAT32, numbers(columns, 3));
      const Tensor residual({1, kRows, columns}, WK_FLOAT32, numbers(kRows * columns, 4)),
          gate({1, 1, columns}, WK_FLOAT32, numbers(columns, 5));
      Values y = multiply(x, weight, static_cast<size_t>(width)), added(y.size());
      for (size_t i = 0; i < y.size(); ++i) {
        const size_t row = i / static_cast<size_t>(columns), column = i % static_cast<size_t>(columns);
        y[i] = y[i] * x_scale.values()[row] * weight_scale.values()[column] + bias.values()[column];
        added[i] = residual.values()[i] + y[i] * gate.values()[column];
      }
      const Tensor out({1, kRows, columns}, WK_FLOAT32);
      EXPECT_OK(wk_linear_8bit(&out.view, nullptr, &x.view, &x_scale.view, &packed.view, &weight_scale.view, &bias.view,
                               nullptr, nullptr, nullptr, 0, nullptr));
      EXPECT_NEAR(out.values(), y, 1e-5);
      EXPECT_OK(wk_linear_8bit(&out.view, nullptr, &x.view, &x_scale.view, &packed.view, &weight_scale.view, &bias.view,
                               &residual.view, &gate.view, nullptr, 0, nullptr));
      EXPECT_NEAR(out.values(), added, 1e-5);
      Codes codes({1, kRows, columns});
      const Tensor scales({1, kRows}, WK_FLOAT32);
      EXPECT_OK(wk_linear_8bit(&codes.view, &scales.view, &x.view, &x_scale.view, &packed.view, &weight_scale.view,
                               &bias.view, nullptr, nullptr, nullptr, 1, nullptr));
      EXPECT_REFUSED(wk_linear_8bit(&out.view, nullptr, &x.view, &x_scale.view, &weight.view, &weight_scale.view,
                                    &bias.view, nullptr, nullptr, nullptr, 0, nullptr),
                     WK_ERROR_INVALID_ARGUMENT, "weight must have shape");
    }
  }
}

void test_layer_norm_modulate_8bit() {
  const Tensor x({2, 3, 37}, WK_FLOAT32, numbers(222, 8)), out({2, 3, 37}, WK_FLOAT32), scales({2, 3}, WK_FLOAT32);
  Codes codes({2, 3, 37});
  EXPECT_OK(wk_layer_norm_modulate(&out.view, &x.view, nullptr, nullptr, nullptr, nullptr, nullptr, kEps, nullptr));
  EXPECT_OK(wk_layer_norm_modulate_8bit(&codes.view, &scales.view, &x.view, nullptr, nullptr, nullptr, nullptr, nullptr,
                                        kEps, nullptr));
  const Values wanted = out.values(), row_scales = scales.values();
  for (size_t i = 0; i < wanted.size(); ++i) {
    EXPECT(std::fabs(codes.bytes[i] * row_scales[i / 37] - wanted[i]) <= 0.501 * row_scales[i / 37]);
  }
}

void test_gate_residual_layer_norm_modulate_8bit() {
  const Tensor x({2, 3, 37}, WK_FLOAT32, numbers(222, 8)), y({2, 3, 37}, WK_BFLOAT16, numbers(222, 9)),
      gate({2, 1, 37}, WK_FLOAT32, numbers(74, 10)), sum({2, 3, 37}, WK_FLOAT32), sum_alone({2, 3, 37}, WK_FLOAT32);
  EXPECT_OK(wk_gate_residual(&sum_alone.view, &x.view, &y.view, &gate.view, nullptr, nullptr));
  for (int32_t dtype : {WK_INT8, WK_FLOAT8_E4M3}) {
    Codes codes({2, 3, 37}, dtype), alone({2, 3, 37}, dtype, -1);
    const Tensor scales({2, 3}, WK_FLOAT32), scales_alone({2, 3}, WK_FLOAT32);
    EXPECT_OK(wk_gate_residual_layer_norm_modulate_8bit(&sum.view, &codes.view, &scales.view, &x.view, &y.view,
                                                        &gate.view, nullptr, nullptr, nullptr, nullptr, nullptr, kEps,
                                                        nullptr));
    EXPECT_OK(wk_layer_norm_modulate_8bit(&alone.view, &scales_alone.view, &sum_alone.view, nullptr, nullptr, nullptr,
                                          nullptr, nullptr, kEps, nullptr));
    EXPECT(sum.values() == sum_alone.values());
    EXPECT(scales.values() == scales_alone.values());
    EXPECT(codes.bytes == alone.bytes);
  }
}

void test_rms_norm_rope_8bit(int32_t dtype, int64_t tokens_per_scale, bool is_smooth) {
  const int64_t num_heads = 3, head_width = 14, width = 42, length = 13, grid[3] = {2, 2, 3};
  const int64_t num_blocks = (length + tokens_per_scale - 1) / tokens_per_scale;
  const Tensor t({2, 1, 2}, WK_FLOAT32, numbers(4, 7)), y({2, 2, 2}, WK_FLOAT32, numbers(8, 8)),
      z({3, 4, 2}, WK_FLOAT32, numbers(24, 9)), weight({width}, dtype, numbers(width, 2));
  const Tensor x({2, length, width}, dtype, numbers(2 * length * width, 1)),
      wide({2, length, width}, WK_FLOAT32, x.values()), out({2, length, num_heads, head_width}, WK_FLOAT32);
  EXPECT_OK(
      wk_rms_norm_rope(&out.view, &wide.view, &weight.view, &t.view, &y.view, &z.view, num_heads, grid, kEps, nullptr));
  Codes codes({2, num_heads, length, head_width});
  const Tensor scales({2, num_heads, num_blocks}, WK_FLOAT32), mean({2, num_heads, head_width}, WK_FLOAT32);
  const auto run = [&](int64_t per) {
    return wk_rms_norm_rope_8bit(&codes.view, &scales.view, &mean.view, &x.view, &weight.view, &t.view, &y.view,
                                 &z.view, num_heads, grid, kEps, per, is_smooth, nullptr);
  };
  EXPECT_OK(run(tokens_per_scale));
  const Values wanted = out.values(), row_scales = scales.values(), means = mean.values();
  for (int64_t i = 0; i < 2 * length * width; ++i) {
    const int64_t channel = i % head_width, head = i / head_width % num_heads, l = i / width % length;
    const int64_t of_head = i / width / length * num_heads + head;
    const double scale = row_scales[static_cast<size_t>(of_head * num_blocks + l / tokens_per_scale)];
    const double code = codes.bytes[static_cast<size_t>((of_head * length + l) * head_width + channel)];
    const double got = code * scale + means[static_cast<size_t>(of_head * head_width + channel)];
    EXPECT(std::fabs(got - wanted[static_cast<size_t>(i)]) <= 0.501 * scale);
  }
  EXPECT_REFUSED(run(0), WK_ERROR_INVALID_ARGUMENT, "tokens_per_scale must be at least 1, got 0");
}

// Channels of x [2, length, 3, 9], of which 7 are read: heads that do not lie side by side.
void test_quantize_heads(int32_t dtype, int64_t length, int64_t tokens_per_scale, bool is_smooth) {
  const int64_t num_heads = 3, padded = 9, width = 7, num_blocks = (length + tokens_per_scale - 1) / tokens_per_scale;
  const Tensor all({2, length, num_heads, padded}, dtype, numbers(2 * length * num_heads * padded, 1));
  wk_tensor x = all.view;
  x.shape[3] = width;
  Codes codes({2, num_heads, length, width});
  const Tensor scales({2, num_heads, num_blocks}, WK_FLOAT32), mean({2, num_heads, width}, WK_FLOAT32);
  const auto run = [&](const wk_tensor &from, int64_t per) {
    return wk_quantize_heads(&codes.view, &scales.view, &mean.view, &from, per, is_smooth, nullptr);
  };
  EXPECT_OK(run(x, tokens_per_scale));
  const Values values = all.values(), row_scales = scales.values(), means = mean.values();
  double sum_of_means = 0.0;
  for (int64_t i = 0; i < 2 * num_heads * length * width; ++i) {
    const int64_t channel = i % width, l = i / width % length, of_head = i / width / length;
    const int64_t sample = of_head / num_heads, head = of_head % num_heads;
    const double scale = row_scales[static_cast<size_t>(of_head * num_blocks + l / tokens_per_scale)];
    const double average = means[static_cast<size_t>(of_head * width + channel)];
    const double wanted = values[static_cast<size_t>(((sample * length + l) * num_heads + head) * padded + channel)];
    EXPECT(std::fabs(codes.bytes[static_cast<size_t>(i)] * scale + average - wanted) <= 0.501 * scale);
    sum_of_means += std::fabs(average);
  }
  EXPECT((sum_of_means > 0.0) == is_smooth);
  EXPECT_REFUSED(run(x, 0), WK_ERROR_INVALID_ARGUMENT, "tokens_per_scale must be at least 1, got 0");
  x.shape[1] += 1;
  EXPECT_REFUSED(run(x, 1), WK_ERROR_INVALID_ARGUMENT, "[quantize_heads] out must have shape");
  x.shape[1] -= 1;
  x.stride[3] = 2;
  EXPECT_REFUSED(run(x, tokens_per_scale), WK_ERROR_INVALID_ARGUMENT, "x must have a contiguous last dimension");
}

void test_quantize_values(int32_t dtype, int64_t length, int64_t tokens_per_scale, bool is_smooth, bool is_permuted) {
  const int64_t channels = 21, positions = (length + 127) / 128 * 128;
  const int64_t block = tokens_per_scale ? tokens_per_scale : positions, num_blocks = (length + block - 1) / block;
  const int64_t order[16] = {0, 1, 8, 9, 2, 3, 10, 11, 4, 5, 12, 13, 6, 7, 14, 15};
  const Tensor v({2, length, 3, 7}, dtype, numbers(2 * length * channels, 1));
  const Tensor scales({2, 3, num_blocks, 7}, WK_FLOAT32), mean({2, 3, 7}, WK_FLOAT32);
  Codes codes({2, 3, 7, positions}), narrow({2, 3, 7, positions}, WK_FLOAT8_E4M3);
  const auto run = [&](const wk_tensor &out, const wk_tensor &values, int64_t per) {
    return wk_quantize_values(&out, &scales.view, &mean.view, &values, per, is_smooth, is_permuted, nullptr);
  };
  EXPECT_OK(run(narrow.view, v.view, tokens_per_scale));
  EXPECT_OK(run(codes.view, v.view, tokens_per_scale));
  const Values values = v.values(), channel_scales = scales.values(), means = mean.values();
  for (int64_t i = 0; i < 2 * channels * positions; ++i) {
    const int64_t row = i / positions, position = i % positions;
    const int64_t token = is_permuted ? position / 16 * 16 + order[position % 16] : position;
    const int code = codes.bytes[static_cast<size_t>(i)];
    if (token >= length) {
      EXPECT(code == 0 && narrow.bytes[static_cast<size_t>(i)] == 0);
      continue;
    }
    const double wanted = values[static_cast<size_t>((row / channels * length + token) * channels + row % channels)];
    const int64_t scale_row = (row / 7 * num_blocks + token / block) * 7 + row % 7;
    const double scale = channel_scales[static_cast<size_t>(scale_row)];
    const double got = code * scale + means[static_cast<size_t>(row)];
    EXPECT(std::fabs(got - wanted) <= 0.501 * scale);
  }
  wk_tensor longer = v.view;
  longer.shape[1] += 128;
  EXPECT_REFUSED(run(codes.view, longer, tokens_per_scale), WK_ERROR_INVALID_ARGUMENT,
                 "[quantize_values] out must have shape");
  EXPECT_REFUSED(run(codes.view, v.view, 64), WK_ERROR_INVALID_ARGUMENT, "must be 0 or a multiple of 128, got 64");
}

}  // namespace

void test_8bit_ops() {
  test_quantize_rows();
  test_layer_norm_modulate_8bit();
  test_gate_residual_layer_norm_modulate_8bit();
  test_linear_8bit();
  for (int variant = 0; variant < 4; ++variant) {
    const int32_t dtype = kDtypes[variant & 1];
    for (int64_t tokens_per_scale : {1, 4, 100}) test_rms_norm_rope_8bit(dtype, tokens_per_scale, variant & 2);
    for (int64_t length : {1, 9, 130}) {
      for (int64_t tokens_per_scale : {1, 4, 100}) {
        test_quantize_heads(dtype, length, tokens_per_scale, variant & 2);
      }
    }
    for (int64_t length : {1, 63, 64, 130, 300}) {
      for (int64_t tokens_per_scale : {0, 128, 256}) {
        test_quantize_values(dtype, length, tokens_per_scale, variant & 2, length % 2);
        test_quantize_values(dtype, length, tokens_per_scale, variant & 2, !(length % 2));
      }
    }
  }
}
