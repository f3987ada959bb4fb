// SPDX-License-Identifier: Apache-2.0
// wk_causal_conv3d, as ops_test.cpp does the others.
#include "support.h"

namespace {

struct Conv {
  int64_t samples, in, out, frames, rows, columns;
  int64_t kernel[3], stride[3], padding[4];
  bool has_cache, has_bias;

  int64_t history() const { return kernel[0] - stride[0]; }
  int64_t out_side(int k) const {
    const int64_t side[3] = {frames + history(), rows + padding[0] + padding[1], columns + padding[2] + padding[3]};
    return (side[k] - kernel[k]) / stride[k] + 1;
  }
};

// [B, T, Y, X, C] in memory, seen as [B, C, T, Y, X].
wk_tensor channels_first(const Tensor &tensor) {
  wk_tensor view = tensor.view;
  const int order[5] = {0, 4, 1, 2, 3};
  for (int k = 0; k < 5; ++k) {
    view.shape[k] = tensor.view.shape[order[k]];
    view.stride[k] = tensor.view.stride[order[k]];
  }
  return view;
}

// The sum of one output; what lies outside is zero.
double output_at(const Conv &conv, const Values &x, const Values &cache, const Values &weight, int64_t sample,
                 int64_t channel, int64_t t, int64_t y, int64_t column) {
  double total = 0;
  for (int64_t dt = 0; dt < conv.kernel[0]; ++dt) {
    for (int64_t dy = 0; dy < conv.kernel[1]; ++dy) {
      for (int64_t dx = 0; dx < conv.kernel[2]; ++dx) {
        const int64_t row = y * conv.stride[1] + dy - conv.padding[0];
        const int64_t at = column * conv.stride[2] + dx - conv.padding[2];
        if (row < 0 || row >= conv.rows || at < 0 || at >= conv.columns) continue;
        const int64_t frame = t * conv.stride[0] + dt - conv.history();
        if (frame < 0 && !conv.has_cache) continue;
        const Values &video = frame < 0 ? cache : x;
        const int64_t frames = frame < 0 ? conv.history() : conv.frames;
        const int64_t pixel =
            ((sample * frames + (frame < 0 ? frame + frames : frame)) * conv.rows + row) * conv.columns + at;
        for (int64_t c = 0; c < conv.in; ++c) {
          const int64_t tap = ((channel * conv.in + c) * conv.kernel[0] + dt) * conv.kernel[1] * conv.kernel[2];
          total += video[static_cast<size_t>(pixel * conv.in + c)] *
                   weight[static_cast<size_t>(tap + dy * conv.kernel[2] + dx)];
        }
      }
    }
  }
  return total;
}

void test_causal_conv3d(int32_t dtype, const Conv &conv) {
  const auto filled = [&](std::vector<int64_t> shape, unsigned seed) {
    return Tensor(shape, dtype, numbers(product(shape), seed));
  };
  const Tensor x = filled({conv.samples, conv.frames, conv.rows, conv.columns, conv.in}, 1);
  const Tensor cache = filled({conv.samples, conv.history(), conv.rows, conv.columns, conv.in}, 2);
  const Tensor weight = filled({conv.out, conv.in, conv.kernel[0], conv.kernel[1], conv.kernel[2]}, 3);
  const Tensor bias = filled({conv.out}, 4);
  const int64_t sides[3] = {conv.out_side(0), conv.out_side(1), conv.out_side(2)};
  const Tensor out({conv.samples, sides[0], sides[1], sides[2], conv.out}, dtype);
  const wk_tensor x_view = channels_first(x), cache_view = channels_first(cache), out_view = channels_first(out);
  EXPECT_OK(wk_causal_conv3d(&out_view, &x_view, &weight.view, conv.has_bias ? &bias.view : nullptr,
                             conv.has_cache ? &cache_view : nullptr, conv.stride, conv.padding, nullptr));
  const Values x_values = x.values(), cache_values = cache.values(), weights = weight.values(), biases = bias.values();
  Values wanted;
  for (int64_t sample = 0; sample < conv.samples; ++sample) {
    for (int64_t t = 0; t < sides[0]; ++t) {
      for (int64_t y = 0; y < sides[1]; ++y) {
        for (int64_t column = 0; column < sides[2]; ++column) {
          for (int64_t o = 0; o < conv.out; ++o) {
            wanted.push_back(output_at(conv, x_values, cache_values, weights, sample, o, t, y, column) +
                             (conv.has_bias ? biases[static_cast<size_t>(o)] : 0.0));
          }
        }
      }
    }
  }
  EXPECT_NEAR(out.values(), wanted, tolerance(dtype));
}

// A stream of chunks through a ring that it goes round several times, against one pass; the second half of a residual
// block: norm, convolution and sum.
void test_causal_conv3d_ring(int32_t dtype, int64_t num_slots) {
  const int64_t frames = 11, rows = 4, columns = 3, in = 6, num_out = 19;
  const Values pixels = numbers(frames * rows * columns * in, 1),
               residuals = numbers(frames * rows * columns * num_out, 2);
  const Tensor x({1, frames, rows, columns, in}, dtype, pixels);
  const Tensor residual({1, frames, rows, columns, num_out}, dtype, residuals);
  const Tensor weight({num_out, in, 3, 3, 3}, dtype, numbers(num_out * in * 27, 3)),
      bias({num_out}, dtype, numbers(num_out, 4));
  const Tensor norm_weight({in}, dtype, numbers(in, 5)), out({1, frames, rows, columns, num_out}, dtype);
  const Tensor whole({1, frames, rows, columns, num_out}, dtype);
  const Values strays(static_cast<size_t>(num_slots * rows * columns * in), std::nan(""));
  const Tensor ring({1, num_slots, rows, columns, in}, dtype, strays), one_ring({1, 2, rows, columns, in}, dtype);
  const int64_t one[3] = {1, 1, 1}, around[4] = {1, 1, 1, 1};
  const auto run = [&](const Tensor &to, const Tensor &past, int64_t first, int64_t count) {
    wk_tensor views[3] = {channels_first(x), channels_first(residual), channels_first(to)};
    for (wk_tensor &view : views) {
      view.data = static_cast<char *>(view.data) + first * view.stride[2] * (dtype == WK_FLOAT32 ? 4 : 2);
      view.shape[2] = count;
    }
    const wk_tensor ring_view = channels_first(past);
    EXPECT_OK(wk_causal_conv3d_ring(&views[2], &ring_view, &views[0], &weight.view, &bias.view, &norm_weight.view,
                                    &views[1], first, one, around, nullptr));
  };
  run(whole, one_ring, 0, frames);
  int64_t first = 0;
  for (int64_t count : {1, 1, 2, 1, 3, 1, 2}) {
    run(out, ring, first, count);
    first += count;
  }
  EXPECT_NEAR(out.values(), whole.values(), tolerance(dtype));
  const wk_tensor x_view = channels_first(x), whole_view = channels_first(whole), ring_view = channels_first(ring);
  EXPECT_REFUSED(wk_causal_conv3d_ring(&whole_view, &ring_view, &x_view, &weight.view, nullptr, nullptr, nullptr, -1,
                                       one, around, nullptr),
                 WK_ERROR_INVALID_ARGUMENT, "position");
  EXPECT_REFUSED(wk_causal_conv3d_ring(&whole_view, nullptr, &x_view, &weight.view, nullptr, nullptr, nullptr, 0, one,
                                       around, nullptr),
                 WK_ERROR_INVALID_ARGUMENT, "ring");
  EXPECT_REFUSED(wk_causal_conv3d_ring(&whole_view, &ring_view, &x_view, &weight.view, nullptr, nullptr, &x_view, 0,
                                       one, around, nullptr),
                 WK_ERROR_INVALID_ARGUMENT, "residual");
}

// Against wk_causal_conv3d of doubled frames.
void test_upsample_conv2d(int32_t dtype) {
  const int64_t rows = 5, columns = 3, in = 6, num_out = 19;
  const Values small = numbers(2 * rows * columns * in, 1);
  Values large;
  for (int64_t i = 0; i < 2 * 4 * rows * columns * in; ++i) {
    const int64_t channel = i % in, column = i / in % (2 * columns), row = i / in / (2 * columns);
    const int64_t frame = row / (2 * rows), pixel = (frame * rows + row % (2 * rows) / 2) * columns + column / 2;
    large.push_back(small[static_cast<size_t>(pixel * in + channel)]);
  }
  const Tensor x({1, 2, rows, columns, in}, dtype, small), doubled({1, 2, 2 * rows, 2 * columns, in}, dtype, large);
  const Tensor weight({num_out, in, 3, 3}, dtype, numbers(num_out * in * 9, 2));
  const Tensor with_time({num_out, in, 1, 3, 3}, dtype, weight.values()), bias({num_out}, dtype, numbers(num_out, 3));
  const Tensor out({1, 2, 2 * rows, 2 * columns, num_out}, dtype),
      wanted({1, 2, 2 * rows, 2 * columns, num_out}, dtype);
  const wk_tensor x_view = channels_first(x), doubled_view = channels_first(doubled), out_view = channels_first(out),
                  wanted_view = channels_first(wanted);
  const int64_t one[3] = {1, 1, 1}, around[4] = {1, 1, 1, 1};
  EXPECT_OK(wk_upsample_conv2d(&out_view, &x_view, &weight.view, &bias.view, nullptr));
  EXPECT_OK(wk_causal_conv3d(&wanted_view, &doubled_view, &with_time.view, &bias.view, nullptr, one, around, nullptr));
  EXPECT_NEAR(out.values(), wanted.values(), 0.0);
  EXPECT_REFUSED(wk_upsample_conv2d(&out_view, &x_view, &with_time.view, nullptr, nullptr), WK_ERROR_INVALID_ARGUMENT,
                 "[O, C, 3, 3]");
  EXPECT_REFUSED(wk_upsample_conv2d(&x_view, &x_view, &weight.view, nullptr, nullptr), WK_ERROR_INVALID_ARGUMENT,
                 "out");
}

void test_refusals() {
  const Tensor x({1, 2, 3, 4, 5}, WK_FLOAT32, numbers(120, 1)), weight({6, 5, 3, 3, 3}, WK_FLOAT32, numbers(810, 2)),
      out({1, 2, 3, 4, 6}, WK_FLOAT32);
  const int64_t one[3] = {1, 1, 1}, slow[3] = {4, 1, 1}, around[4] = {1, 1, 1, 1};
  const wk_tensor x_view = channels_first(x), out_view = channels_first(out);
  EXPECT_REFUSED(wk_causal_conv3d(&out_view, &x.view, &weight.view, nullptr, nullptr, one, around, nullptr),
                 WK_ERROR_INVALID_ARGUMENT, "input channels");
  EXPECT_REFUSED(wk_causal_conv3d(&out_view, &x_view, &weight.view, nullptr, nullptr, slow, around, nullptr),
                 WK_ERROR_INVALID_ARGUMENT, "stride in time");
  EXPECT_REFUSED(wk_causal_conv3d(&x_view, &x_view, &weight.view, nullptr, nullptr, one, around, nullptr),
                 WK_ERROR_INVALID_ARGUMENT, "out");
  const Tensor planes({1, 5, 2, 3, 4}, WK_FLOAT32, numbers(120, 1));
  EXPECT_REFUSED(wk_causal_conv3d(&out_view, &planes.view, &weight.view, nullptr, nullptr, one, around, nullptr),
                 WK_ERROR_INVALID_ARGUMENT, "side by side");
}

}  // namespace

void test_causal_conv3d() {
  const Conv convs[] = {
      {1, 5, 7, 3, 4, 5, {3, 3, 3}, {1, 1, 1}, {1, 1, 1, 1}, true, true},
      {2, 16, 16, 9, 3, 2, {3, 3, 3}, {1, 1, 1}, {1, 1, 1, 1}, false, true},
      {1, 3, 33, 1, 7, 9, {3, 3, 3}, {1, 1, 1}, {1, 1, 1, 1}, false, false},
      {1, 2, 3, 2, 50, 49, {1, 3, 3}, {1, 1, 1}, {0, 2, 1, 0}, false, true},
      {1, 6, 4, 4, 5, 6, {3, 1, 1}, {2, 1, 1}, {0, 0, 0, 0}, true, true},
      {1, 8, 5, 2, 7, 6, {1, 3, 3}, {1, 2, 2}, {0, 1, 0, 1}, false, true},
      {2, 20, 9, 2, 3, 3, {1, 1, 1}, {1, 1, 1}, {0, 0, 0, 0}, false, false},
      {1, 4, 3, 5, 6, 5, {3, 3, 3}, {2, 1, 1}, {1, 0, 1, 2}, false, true},
  };
  for (int32_t dtype : kDtypes) {
    for (const Conv &conv : convs) test_causal_conv3d(dtype, conv);
    test_upsample_conv2d(dtype);
    for (int64_t num_slots : {2, 3, 5}) test_causal_conv3d_ring(dtype, num_slots);
  }
  const Tensor none({0, 2, 3, 4, 5}, WK_FLOAT32), weight({6, 5, 3, 3, 3}, WK_FLOAT32, numbers(810, 2)),
      no_out({0, 2, 3, 4, 6}, WK_FLOAT32);
  const int64_t one[3] = {1, 1, 1}, around[4] = {1, 1, 1, 1};
  const wk_tensor none_view = channels_first(none), out_view = channels_first(no_out);
  EXPECT_OK(wk_causal_conv3d(&out_view, &none_view, &weight.view, nullptr, nullptr, one, around, nullptr));
  test_refusals();
}
