// SPDX-License-Identifier: Apache-2.0
#include "common/memory.h"
#include "common/parallel.h"
#include "ops/causal_conv3d/causal_conv3d_cpu.h"

namespace wk {
namespace {

constexpr int64_t kBlockFrames = 8;  // of the output; the frames before them are transformed again
constexpr int64_t kBlockRows = 64;   // of products that share a line of weights

// How many blocks a call should have at least, so that threads end together.
constexpr int64_t kLeastBlocks = 16;
constexpr int64_t kLeastOutputs = 4096;  // of a frame, for tiles of 4 x 4

int64_t rounded_up(int64_t count, int64_t step) { return (count + step - 1) / step * step; }
int64_t at_most(int64_t count, int64_t most) { return count < most ? count : most; }

wk_status read_video(const char *op, const char *name, const wk_tensor *tensor, Video *video) {
  if (!tensor) return WK_OK;
  const int64_t *stride = tensor->stride;
  WK_REQUIRE(tensor->shape[1] <= 1 || stride[1] == 1,
             "[%s] %s must have its channels side by side (stride 1), got stride %lld", op, name,
             static_cast<long long>(stride[1]));
  *video = {static_cast<char *>(tensor->data), stride[0], stride[2], stride[3], stride[4]};
  return WK_OK;
}

struct Arguments {
  const char *op;
  const wk_tensor *out, *x, *weight, *bias;
  const wk_tensor *past;  // a ring, or a cache: a ring of just the frames before x; or null
  const int64_t *stride, *padding;
  int64_t position = 0;  // frames before x
  bool is_ring = false;
  const wk_tensor *norm_weight = nullptr, *residual = nullptr;
  int64_t enlarged_bits = 0;  // x stands for frames of 2^bits times as many rows and columns

  const char *past_name() const { return is_ring ? "ring" : "cache"; }
};

wk_status check_window(const Arguments &arguments) {
  const int64_t *taps = arguments.weight->shape + 2, *side = arguments.x->shape + 2, *padding = arguments.padding;
  const int64_t *stride = arguments.stride;
  const char *op = arguments.op;
  for (int k = 0; k < 3; ++k) {
    WK_REQUIRE(taps[k] > 0 && stride[k] > 0, "[%s] kernel and stride must be at least 1, got %lld and %lld", op,
               static_cast<long long>(taps[k]), static_cast<long long>(stride[k]));
  }
  WK_REQUIRE(stride[0] <= taps[0], "[%s] stride in time must be at most kt = %lld, got %lld", op,
             static_cast<long long>(taps[0]), static_cast<long long>(stride[0]));
  for (int k = 0; k < 4; ++k) {
    WK_REQUIRE(padding[k] >= 0, "[%s] padding must not be negative, got %lld", op, static_cast<long long>(padding[k]));
  }
  WK_REQUIRE(side[0] >= stride[0] && side[1] + padding[0] + padding[1] >= taps[1] &&
                 side[2] + padding[2] + padding[3] >= taps[2],
             "[%s] x must hold the kernel once at least, got %lld frames of %lld x %lld", op,
             static_cast<long long>(side[0]), static_cast<long long>(side[1]), static_cast<long long>(side[2]));
  return WK_OK;
}

// A tensor like x, with its channels in front of T, Y and X.
wk_status check_video(const Arguments &arguments, const char *name, const wk_tensor *tensor, const int64_t shape[5]) {
  WK_TRY(check_floating(arguments.op, name, tensor));
  WK_TRY(check_shape(arguments.op, name, *tensor, 5, shape));
  return check_same_dtype(arguments.op, name, *tensor, "x", *arguments.x);
}

wk_status check_past(const Arguments &arguments, int64_t num_history) {
  const wk_tensor &x = *arguments.x, *past = arguments.past;
  WK_REQUIRE(arguments.position >= 0, "[%s] position must be the number of frames before x, got %lld", arguments.op,
             static_cast<long long>(arguments.position));
  if (!past) return WK_OK;
  WK_TRY(check_floating(arguments.op, arguments.past_name(), past));
  const bool has_frames = past->ndim == 5 && past->shape[2] >= num_history;
  WK_REQUIRE(has_frames, "[%s] %s must have %lld frames at least, got %lld", arguments.op, arguments.past_name(),
             static_cast<long long>(num_history), static_cast<long long>(past->ndim == 5 ? past->shape[2] : -1));
  const int64_t shape[5] = {x.shape[0], x.shape[1], arguments.is_ring ? past->shape[2] : num_history, x.shape[3],
                            x.shape[4]};
  return check_video(arguments, arguments.past_name(), past, shape);
}

wk_status check(const Arguments &arguments) {
  const char *op = arguments.op;
  const wk_tensor &x = *arguments.x, &weight = *arguments.weight;
  WK_TRY(check_floating(op, "x", &x));
  WK_TRY(check_floating(op, "weight", &weight));
  WK_REQUIRE(x.ndim == 5 && weight.ndim == 5, "[%s] x and weight must have 5 dimensions, got %d and %d", op, x.ndim,
             weight.ndim);
  WK_REQUIRE(weight.shape[1] == x.shape[1], "[%s] weight must have %lld input channels, got %lld", op,
             static_cast<long long>(x.shape[1]), static_cast<long long>(weight.shape[1]));
  WK_TRY(check_window(arguments));
  const int64_t *stride = arguments.stride, *padding = arguments.padding, bits = arguments.enlarged_bits;
  const int64_t out_shape[5] = {x.shape[0], weight.shape[0], (x.shape[2] - stride[0]) / stride[0] + 1,
                                ((x.shape[3] << bits) + padding[0] + padding[1] - weight.shape[3]) / stride[1] + 1,
                                ((x.shape[4] << bits) + padding[2] + padding[3] - weight.shape[4]) / stride[2] + 1};
  WK_TRY(check_video(arguments, "out", arguments.out, out_shape));
  WK_TRY(check_same_dtype(op, "weight", weight, "x", x));
  WK_TRY(check_past(arguments, weight.shape[2] - stride[0]));
  if (arguments.residual) WK_TRY(check_video(arguments, "residual", arguments.residual, out_shape));
  return require_all_cpu(
      op, {arguments.out, &x, &weight, arguments.bias, arguments.past, arguments.norm_weight, arguments.residual});
}

// How the output is cut into blocks. A line of weights meets all rows of a block: as many as may be share it, and where
// that leaves few blocks, channels are shared among them, though each gathers the rows again.
void cut(CausalConv3d *call) {
  const int64_t num_tiles = call->tile_rows * call->tile_columns;
  call->block_frames = at_most(call->out_frames, kBlockFrames);
  call->block_tiles = rounded_up(at_most(kBlockRows / call->block_frames, num_tiles), kTileStep);
  call->block_groups = call->num_groups;
  const int64_t parts = (kLeastBlocks + num_blocks(*call) - 1) / num_blocks(*call);
  call->block_groups = at_most(rounded_up((call->num_groups + parts - 1) / parts, 2), call->num_groups);
}

wk_status read_call(const Arguments &arguments, CausalConv3d *call) {
  const wk_tensor &x = *arguments.x, &weight = *arguments.weight, &out = *arguments.out;
  WK_TRY(read_video(arguments.op, "x", &x, &call->x));
  WK_TRY(read_video(arguments.op, "out", &out, &call->out));
  WK_TRY(read_video(arguments.op, arguments.past_name(), arguments.past, &call->ring));
  WK_TRY(read_video(arguments.op, "residual", arguments.residual, &call->residual));
  call->position = arguments.position;
  call->num_slots = arguments.past ? arguments.past->shape[2] : 0;
  call->dtype = x.dtype;
  call->num_samples = x.shape[0];
  call->num_in = x.shape[1];
  call->num_out = out.shape[1];
  call->rows = x.shape[3] << arguments.enlarged_bits;
  call->columns = x.shape[4] << arguments.enlarged_bits;
  call->enlarged_bits = arguments.enlarged_bits;
  call->out_frames = out.shape[2];
  call->out_rows = out.shape[3];
  call->out_columns = out.shape[4];
  call->kernel = {weight.shape[2], weight.shape[3], weight.shape[4]};
  call->stride = {arguments.stride[0], arguments.stride[1], arguments.stride[2]};
  call->top = arguments.padding[0];
  call->left = arguments.padding[2];
  const bool is_winograd = weight.shape[3] == 3 && weight.shape[4] == 3 && call->stride.y == 1 && call->stride.x == 1;
  // Few rows would not repay the packing of the larger tiles' weights. A frame alone decides, so that chunks of a video
  // give what all of it gives.
  const bool is_wide = x.dtype != WK_FLOAT32 && call->out_rows * call->out_columns >= kLeastOutputs;
  const int64_t side = !is_winograd ? 1 : is_wide ? 4 : 2;
  call->tile_side = side;
  call->num_planes = is_winograd ? (side + 2) * (side + 2) : 1;
  call->depth = is_winograd ? call->num_in : call->kernel.y * call->kernel.x * call->num_in;
  call->tile_rows = (call->out_rows + side - 1) / side;
  call->tile_columns = (call->out_columns + side - 1) / side;
  call->num_groups = (call->num_out + 15) / 16;
  cut(call);
  return WK_OK;
}

// Needs checked arguments.
wk_status convolve(const Arguments &arguments) {
  const char *op = arguments.op;
  const wk_tensor &weight = *arguments.weight, &out = *arguments.out;
  const CausalConv3dKernels *kernels;
  WK_TRY(select_causal_conv3d_kernels(&kernels));
  if (element_count(out) == 0) return WK_OK;
  CausalConv3d call;
  WK_TRY(read_call(arguments, &call));
  FloatVector biases, norm_weights;
  WK_TRY(biases.read(op, "bias", arguments.bias, call.num_out));
  WK_TRY(norm_weights.read(op, "norm_weight", arguments.norm_weight, call.num_in));
  call.bias = biases.data();
  call.norm_weight = arguments.norm_weight ? norm_weights.data() : nullptr;

  FloatBuffer packed, memory, zeros, ones;
  WK_TRY(packed.allocate(op, call.num_planes * call.num_groups * call.kernel.t * call.depth * 16));
  ConvWeight weights = {static_cast<const char *>(weight.data), {}};
  for (int k = 0; k < 5; ++k) weights.stride[k] = weight.stride[k];
  parallel_for(call.num_groups, 1,
               [&](int64_t begin, int64_t end) { kernels->pack(call, weights, packed.data(), begin, end); });

  const int64_t block_floats = rounded_up(row_floats(call) + product_floats(call), 16);
  WK_TRY(memory.allocate(op, num_threads() * block_floats));
  WK_TRY(zeros.allocate_filled(op, call.num_in, 0.0f));
  WK_TRY(ones.allocate_filled(op, call.block_frames * call.block_tiles, 1.0f));
  prefer_huge_pages(&out);
  parallel_for_threads(num_blocks(call), 1, [&](int64_t begin, int64_t end, int32_t thread) {
    kernels->forward(call, packed.data(), memory.data() + thread * block_floats, ones.data(), zeros.data(), begin, end);
  });
  return WK_OK;
}

char *row_at(const Video &video, int64_t element_bytes, int64_t sample, int64_t frame, int64_t row) {
  return video.data +
         (sample * video.batch_stride + frame * video.frame_stride + row * video.row_stride) * element_bytes;
}

// The last frames of x, as many as the next call will see at most, each to its slot. After the products: until then
// the ring holds what they read.
wk_status write_ring(const Arguments &arguments) {
  const wk_tensor &x = *arguments.x;
  Video from, to;
  WK_TRY(read_video(arguments.op, "x", &x, &from));
  WK_TRY(read_video(arguments.op, "ring", arguments.past, &to));
  const int64_t history = arguments.weight->shape[2] - arguments.stride[0], num_frames = x.shape[2];
  const int64_t num_rows = x.shape[3], num_columns = x.shape[4], kept = at_most(num_frames, history);
  const int64_t element_bytes = dtype_bytes(x.dtype), pixel_bytes = x.shape[1] * element_bytes;
  const bool is_dense = from.pixel_stride == x.shape[1] && to.pixel_stride == x.shape[1];
  parallel_for(x.shape[0] * kept * num_rows, rows_per_piece(x.shape[1] * num_columns), [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const int64_t row = i % num_rows, frame = num_frames - kept + i / num_rows % kept, sample = i / num_rows / kept;
      const int64_t slot = (arguments.position + frame) % arguments.past->shape[2];
      const char *source = row_at(from, element_bytes, sample, frame, row);
      char *target = row_at(to, element_bytes, sample, slot, row);
      const int64_t copies = is_dense ? 1 : num_columns, bytes = is_dense ? num_columns * pixel_bytes : pixel_bytes;
      for (int64_t k = 0; k < copies; ++k) {
        __builtin_memcpy(target + k * to.pixel_stride * element_bytes, source + k * from.pixel_stride * element_bytes,
                         static_cast<size_t>(bytes));
      }
    }
  });
  return WK_OK;
}

// [O, C, ky, kx] as [O, C, 1, ky, kx].
wk_tensor with_time(const wk_tensor &weight) {
  wk_tensor result = weight;
  result.ndim = 5;
  for (int k = 4; k > 2; --k) {
    result.shape[k] = weight.shape[k - 1];
    result.stride[k] = weight.stride[k - 1];
  }
  result.shape[2] = result.stride[2] = 1;
  return result;
}

}  // namespace
}  // namespace wk

using namespace wk;

extern "C" wk_status wk_causal_conv3d(const wk_tensor *out, const wk_tensor *x, const wk_tensor *weight,
                                      const wk_tensor *bias, const wk_tensor *cache, const int64_t stride[3],
                                      const int64_t padding[4], void * /*stream*/) {
  Arguments arguments = {"causal_conv3d", out, x, weight, bias, cache, stride, padding};
  if (cache && weight && weight->ndim == 5) arguments.position = weight->shape[2] - stride[0];
  WK_TRY(check(arguments));
  return convolve(arguments);
}

extern "C" wk_status wk_causal_conv3d_ring(const wk_tensor *out, const wk_tensor *ring, const wk_tensor *x,
                                           const wk_tensor *weight, const wk_tensor *bias, const wk_tensor *norm_weight,
                                           const wk_tensor *residual, int64_t position, const int64_t stride[3],
                                           const int64_t padding[4], void * /*stream*/) {
  Arguments arguments = {"causal_conv3d_ring", out, x, weight, bias, ring, stride, padding, position, true};
  arguments.norm_weight = norm_weight;
  arguments.residual = residual;
  WK_REQUIRE(ring, "[causal_conv3d_ring] ring must be given, got NULL");
  WK_TRY(check(arguments));
  WK_REQUIRE(x->shape[2] % stride[0] == 0, "[causal_conv3d_ring] x must have a multiple of %lld frames, got %lld",
             static_cast<long long>(stride[0]), static_cast<long long>(x->shape[2]));
  WK_TRY(convolve(arguments));
  return write_ring(arguments);
}

extern "C" wk_status wk_upsample_conv2d(const wk_tensor *out, const wk_tensor *x, const wk_tensor *weight,
                                        const wk_tensor *bias, void * /*stream*/) {
  const int64_t stride[3] = {1, 1, 1}, padding[4] = {1, 1, 1, 1};
  WK_REQUIRE(weight->ndim == 4 && weight->shape[2] == 3 && weight->shape[3] == 3,
             "[upsample_conv2d] weight must have shape [O, C, 3, 3], got %d dimensions", weight->ndim);
  const wk_tensor kernel = with_time(*weight);
  Arguments arguments = {"upsample_conv2d", out, x, &kernel, bias, nullptr, stride, padding};
  arguments.enlarged_bits = 1;
  WK_TRY(check(arguments));
  return convolve(arguments);
}
