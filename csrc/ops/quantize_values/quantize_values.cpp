// SPDX-License-Identifier: Apache-2.0
#include "common/memory.h"
#include "common/parallel.h"
#include "common/reduce.h"
#include "ops/quantize_values/quantize_values_cpu.h"

namespace wk {
namespace {

constexpr const char *kOp = "quantize_values";
constexpr int64_t kPositions = 128;  // P is a multiple of it

wk_status check(const wk_tensor *out, const wk_tensor *out_scale, const wk_tensor *mean, const wk_tensor *v,
                int64_t positions) {
  const int64_t shape[4] = {v->shape[0], v->shape[2], v->shape[3], positions};
  WK_TRY(check_codes(kOp, "out", out));
  WK_TRY(check_dense(kOp, "out", out, out->dtype, 4, shape));
  WK_TRY(check_dense(kOp, "out_scale", out_scale, WK_FLOAT32, 3, shape));
  WK_TRY(check_dense(kOp, "mean", mean, WK_FLOAT32, 3, shape));
  return require_all_cpu(kOp, {out, out_scale, mean, v});
}

// Scale, its inverse and mean of each channel. Parts are cut by the shape and joined in order.
wk_status write_scales(const QuantizeValuesKernels &kernels, const QuantizeValues &call, int64_t batch) {
  const Split split = split_rows(call.length, call.v.width);
  const int64_t part_floats = call.v.width * (call.is_smooth ? 3 : 1);
  FloatBuffer parts;
  WK_TRY(parts.allocate(kOp, batch * split.num_parts * part_floats));
  parallel_for(batch * split.num_parts, 1, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const int64_t first = i / split.num_parts * call.length, part = i % split.num_parts;
      kernels.measure(call, first + split.begin(part), first + split.end(part), parts.data() + i * part_floats);
    }
  });
  for (int64_t sample = 0; sample < batch; ++sample) {
    kernels.finish(call, sample, parts.data() + sample * split.num_parts * part_floats, split.num_parts, part_floats);
  }
  return WK_OK;
}

}  // namespace
}  // namespace wk

using namespace wk;

extern "C" wk_status wk_quantize_values(const wk_tensor *out, const wk_tensor *out_scale, const wk_tensor *mean,
                                        const wk_tensor *v, int32_t is_smooth, int32_t is_permuted, void * /*stream*/) {
  WK_TRY(check_floating(kOp, "v", v));
  WK_REQUIRE(v->ndim == 4, "[%s] v must have 4 dimensions, got %d", kOp, v->ndim);
  const int64_t batch = v->shape[0], length = v->shape[1];
  const int64_t positions = (length + kPositions - 1) / kPositions * kPositions;
  WK_TRY(check(out, out_scale, mean, v, positions));
  const QuantizeValuesKernels *kernels;
  WK_TRY(select_quantize_values_kernels(&kernels));
  QuantizeValues call;
  WK_TRY(fold_heads(kOp, "v", *v, &call.v));
  FloatBuffer inverse;
  WK_TRY(inverse.allocate(kOp, batch * call.v.width));
  call.out = static_cast<char *>(out->data);
  call.out_scale = static_cast<float *>(out_scale->data);
  call.mean = static_cast<float *>(mean->data);
  call.inverse = inverse.data();
  call.length = length;
  call.positions = positions;
  call.code_dtype = out->dtype;
  call.is_smooth = is_smooth;
  call.is_permuted = is_permuted;
  WK_TRY(write_scales(*kernels, call, batch));

  const int64_t tile_bytes = kTileTokens * tile_stride(call.v.width);
  FloatBuffer memory;
  WK_TRY(memory.allocate(kOp, num_threads() * tile_bytes / 4));
  prefer_huge_pages(out);
  parallel_for_threads(batch * positions / kTileTokens, rows_per_piece(kTileTokens * call.v.width),
                       [&](int64_t begin, int64_t end, int32_t thread) {
                         kernels->encode(call, begin, end,
                                         reinterpret_cast<char *>(memory.data()) + thread * tile_bytes);
                       });
  return WK_OK;
}
