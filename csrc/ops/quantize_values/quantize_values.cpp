// SPDX-License-Identifier: Apache-2.0
#include "common/memory.h"
#include "common/parallel.h"
#include "common/reduce.h"
#include "ops/quantize_values/quantize_values_cpu.h"

namespace wk {
namespace {

constexpr const char *kOp = "quantize_values";
constexpr int64_t kPositions = 128;  // P and tokens_per_scale are multiples of it

int64_t divide_up(int64_t count, int64_t by) { return count / by + (count % by > 0); }

wk_status check(const wk_tensor *out, const wk_tensor *out_scale, const wk_tensor *mean, const wk_tensor *v,
                int64_t positions, int64_t num_blocks) {
  const int64_t codes_shape[4] = {v->shape[0], v->shape[2], v->shape[3], positions};
  const int64_t scales_shape[4] = {v->shape[0], v->shape[2], num_blocks, v->shape[3]};
  WK_TRY(check_codes(kOp, "out", out));
  WK_TRY(check_dense(kOp, "out", out, out->dtype, 4, codes_shape));
  WK_TRY(check_dense(kOp, "out_scale", out_scale, WK_FLOAT32, 4, scales_shape));
  WK_TRY(check_dense(kOp, "mean", mean, WK_FLOAT32, 3, codes_shape));
  return require_all_cpu(kOp, {out, out_scale, mean, v});
}

// Means and, unless blocks have their own, scales. Parts are cut by the shape and joined in order.
wk_status measure(const QuantizeValuesKernels &kernels, const QuantizeValues &call, int64_t batch) {
  const int64_t width = call.v.width;
  if (!call.is_smooth || call.length == 0) {
    for (int64_t i = 0; i < batch * width; ++i) call.mean[i] = 0.0f;
    if (call.has_blocks || call.length == 0) return WK_OK;
  }
  const Split split = split_rows(call.length, width);
  const int64_t part_floats = width * (call.is_smooth ? 3 : 1);
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
                                        const wk_tensor *v, int64_t tokens_per_scale, int32_t is_smooth,
                                        int32_t is_permuted, void * /*stream*/) {
  WK_TRY(check_floating(kOp, "v", v));
  WK_REQUIRE(v->ndim == 4, "[%s] v must have 4 dimensions, got %d", kOp, v->ndim);
  WK_REQUIRE(tokens_per_scale >= 0 && tokens_per_scale % kPositions == 0,
             "[%s] tokens_per_scale must be 0 or a multiple of %lld, got %lld", kOp, static_cast<long long>(kPositions),
             static_cast<long long>(tokens_per_scale));
  const int64_t batch = v->shape[0], length = v->shape[1], head_width = v->shape[3];
  const int64_t positions = divide_up(length, kPositions) * kPositions;
  const bool has_blocks = tokens_per_scale > 0;
  WK_TRY(check(out, out_scale, mean, v, positions, has_blocks ? divide_up(length, tokens_per_scale) : length > 0));
  const QuantizeValuesKernels *kernels;
  WK_TRY(select_quantize_values_kernels(&kernels));
  QuantizeValues call;
  WK_TRY(fold_heads(kOp, "v", *v, &call.v));
  call.out = static_cast<char *>(out->data);
  call.out_scale = static_cast<float *>(out_scale->data);
  call.mean = static_cast<float *>(mean->data);
  call.num_heads = v->shape[2];
  call.length = length;
  call.positions = positions;
  call.piece_tokens = has_blocks ? tokens_per_scale : kPositions;
  call.num_pieces = divide_up(positions, call.piece_tokens);
  call.code_dtype = out->dtype;
  call.has_blocks = has_blocks;
  call.is_smooth = is_smooth;
  call.is_permuted = is_permuted;
  WK_TRY(measure(*kernels, call, batch));
  if (element_count(*out) == 0) return WK_OK;

  const int64_t memory_floats = piece_floats(head_width);
  FloatBuffer memory;
  WK_TRY(memory.allocate(kOp, num_threads() * memory_floats));
  prefer_huge_pages(out);
  const int64_t piece_tokens = call.piece_tokens < positions ? call.piece_tokens : positions;
  parallel_for_threads(batch * call.num_pieces * call.num_heads, rows_per_piece(piece_tokens * head_width),
                       [&](int64_t begin, int64_t end, int32_t thread) {
                         kernels->encode(call, begin, end, memory.data() + thread * memory_floats);
                       });
  return WK_OK;
}
