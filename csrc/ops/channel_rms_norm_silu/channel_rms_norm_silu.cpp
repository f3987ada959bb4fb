// SPDX-License-Identifier: Apache-2.0
#include "common/memory.h"
#include "common/parallel.h"
#include "common/reduce.h"
#include "ops/channel_rms_norm_silu/channel_rms_norm_silu_cpu.h"

namespace wk {
namespace {

constexpr const char *kOp = "channel_rms_norm_silu";

// A block's scratch memory should stay in a second cache of 512 KB, both values of a backward included.
constexpr int64_t kBlockFloats = 32768;

struct Shape {
  int64_t batch, num_channels, num_positions;
};

wk_status check(const wk_tensor *other, const char *name, const wk_tensor *x, const wk_tensor *weight) {
  WK_TRY(check_floating(kOp, "x", x));
  WK_TRY(check_floating(kOp, "weight", weight));
  WK_TRY(check_floating(kOp, name, other));
  WK_REQUIRE(x->ndim >= 3 && x->ndim <= 5, "[%s] x must have 3 to 5 dimensions, got %d", kOp, x->ndim);
  WK_TRY(check_same_shape(kOp, name, *other, "x", *x));
  WK_TRY(check_same_dtype(kOp, name, *other, "x", *x));
  WK_TRY(check_shape(kOp, "weight", *weight, 1, &x->shape[1]));
  return require_all_cpu(kOp, {x, weight, other});
}

Shape shape_of(const wk_tensor &x) {
  Shape shape = {x.shape[0], x.shape[1], 1};
  for (int32_t d = 2; d < x.ndim; ++d) shape.num_positions *= x.shape[d];
  return shape;
}

// Stride between neighbouring positions if the spatial dimensions are one dense run, else 0.
int64_t position_stride(const wk_tensor &tensor) {
  int64_t step = 0, expected = 0;
  for (int32_t d = tensor.ndim - 1; d >= 2; --d) {
    if (tensor.shape[d] == 1) continue;
    if (step == 0) {
      step = tensor.stride[d];
    } else if (tensor.stride[d] != expected) {
      return 0;
    }
    expected = tensor.stride[d] * tensor.shape[d];
  }
  return step == 0 ? 1 : step;
}

wk_status read_view(const char *name, const wk_tensor &tensor, bool is_planes, ChannelView *view) {
  *view = {static_cast<char *>(tensor.data), tensor.stride[0], tensor.stride[1], position_stride(tensor)};
  const bool has_layout = is_planes ? view->position_stride == 1
                                    : view->position_stride != 0 && (tensor.shape[1] == 1 || tensor.stride[1] == 1);
  if (has_layout) return WK_OK;
  return fail(WK_ERROR_UNSUPPORTED, "[%s] %s must be %s like x, its strides are not", kOp, name,
              is_planes ? "contiguous in space" : "channels-last");
}

// x alone decides the layout: rows where channels are adjacent, planes otherwise.
wk_status read_call(const wk_tensor &x, const float *weight, int32_t apply_silu, ChannelRmsNormSiluCall *call) {
  call->is_planes = x.shape[1] == 1 ? position_stride(x) == 1 : x.stride[1] != 1;
  call->weight = weight;
  call->num_channels = x.shape[1];
  call->dtype = x.dtype;
  call->has_silu = apply_silu != 0;
  return read_view("x", x, call->is_planes, &call->x);
}

// How samples are cut into blocks of positions: by the shape alone.
struct Blocks {
  int64_t num_positions, size, per_sample, count;

  explicit Blocks(const Shape &shape) : num_positions(shape.num_positions) {
    const int64_t fitting = kBlockFloats / (shape.num_channels + 1) / 64 * 64;
    size = fitting < 64 ? 64 : fitting;
    if (size > num_positions) size = num_positions;
    per_sample = size > 0 ? (num_positions + size - 1) / size : 0;
    count = shape.num_channels > 0 ? shape.batch * per_sample : 0;
  }

  ChannelBlock at(int64_t i) const {
    const int64_t begin = i % per_sample * size;
    return {i / per_sample, begin, begin + size < num_positions ? begin + size : num_positions};
  }
};

}  // namespace
}  // namespace wk

using namespace wk;

extern "C" wk_status wk_channel_rms_norm_silu(const wk_tensor *out, const wk_tensor *x, const wk_tensor *weight,
                                              int32_t apply_silu, void * /*stream*/) {
  WK_TRY(check(out, "out", x, weight));
  const ChannelRmsNormSiluKernels *kernels;
  WK_TRY(select_channel_rms_norm_silu_kernels(&kernels));
  FloatVector weights;
  WK_TRY(weights.read(kOp, "weight", weight, x->shape[1]));
  const Blocks blocks(shape_of(*x));
  if (blocks.count == 0) return WK_OK;
  ChannelRmsNormSiluCall call;
  WK_TRY(read_call(*x, weights.data(), apply_silu, &call));
  WK_TRY(read_view("out", *out, call.is_planes, &call.out));
  call.is_out_streamed = element_count(*out) * dtype_bytes(out->dtype) >= kStreamedBytes;

  const int64_t floats = scratch_floats(call.num_channels, blocks.size);
  FloatBuffer scratch;
  WK_TRY(scratch.allocate(kOp, num_threads() * floats));
  prefer_huge_pages(out);
  parallel_for_threads(blocks.count, 1, [&](int64_t begin, int64_t end, int32_t thread) {
    for (int64_t i = begin; i < end; ++i) kernels->forward(call, blocks.at(i), scratch.data() + thread * floats);
  });
  return WK_OK;
}

extern "C" wk_status wk_channel_rms_norm_silu_backward(const wk_tensor *grad_x, const wk_tensor *grad_weight,
                                                       const wk_tensor *grad_out, const wk_tensor *x,
                                                       const wk_tensor *weight, int32_t apply_silu, void * /*stream*/) {
  WK_TRY(check(grad_out, "grad_out", x, weight));
  if (grad_x) WK_TRY(check(grad_x, "grad_x", x, weight));
  if (grad_weight) {
    WK_TRY(check_floating(kOp, "grad_weight", grad_weight));
    WK_TRY(check_same_shape(kOp, "grad_weight", *grad_weight, "weight", *weight));
    WK_TRY(require_all_cpu(kOp, {grad_weight}));
  }
  const ChannelRmsNormSiluKernels *kernels;
  WK_TRY(select_channel_rms_norm_silu_kernels(&kernels));
  FloatVector weights;
  WK_TRY(weights.read(kOp, "weight", weight, x->shape[1]));
  const Blocks blocks(shape_of(*x));
  ChannelRmsNormSiluCall call;
  if (blocks.count > 0) {
    WK_TRY(read_call(*x, weights.data(), apply_silu, &call));
    WK_TRY(read_view("grad_out", *grad_out, call.is_planes, &call.grad_out));
    if (grad_x) WK_TRY(read_view("grad_x", *grad_x, call.is_planes, &call.grad_x));
  }

  const int64_t num_channels = x->shape[1];
  const Split split = split_rows(blocks.count, num_channels * blocks.size);
  const int64_t floats = scratch_floats(num_channels, blocks.size);
  FloatBuffer scratch, sums;
  WK_TRY(scratch.allocate(kOp, num_threads() * floats));
  WK_TRY(sums.allocate_filled(kOp, split.num_parts * num_channels, 0.0f));
  prefer_huge_pages(grad_x);
  parallel_for_threads(split.num_parts, 1, [&](int64_t begin, int64_t end, int32_t thread) {
    for (int64_t part = begin; part < end; ++part) {
      float *part_sums = grad_weight ? sums.data() + part * num_channels : nullptr;
      for (int64_t i = split.begin(part); i < split.end(part); ++i) {
        kernels->backward(call, blocks.at(i), scratch.data() + thread * floats, part_sums);
      }
    }
  });
  if (grad_weight) sum_vectors(sums.data(), split.num_parts, num_channels, *grad_weight);
  return WK_OK;
}
