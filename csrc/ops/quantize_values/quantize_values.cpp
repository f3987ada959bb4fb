// SPDX-License-Identifier: Apache-2.0
#include "common/memory.h"
#include "common/parallel.h"
#include "common/reduce.h"
#include "ops/quantize_values/quantize_values_cpu.h"

namespace wk {
namespace {

constexpr const char *kOp = "quantize_values";
constexpr int64_t kPositions = 128;  // P and tokens_per_scale are multiples of it
constexpr uintptr_t kLineBytes = 64;
// What the second cache keeps of a head between the search for its scale and its codes, beside the next head's tokens
// (8192 x 1536 float32, two cores: scales for 512 tokens, which are that much, 2.6 ms, and 3.3 with a pass of their
// own; for 1024 3.5 and 3.3).
constexpr int64_t kCachedBytes = 256 * 1024;

int64_t divide_up(int64_t count, int64_t by) { return count / by + (count % by > 0); }

wk_status check(const wk_tensor *out, const wk_tensor *out_scale, const wk_tensor *mean, const wk_tensor *v,
                int64_t positions, int64_t num_scales) {
  const int64_t codes_shape[4] = {v->shape[0], v->shape[2], v->shape[3], positions};
  const int64_t scales_shape[4] = {v->shape[0], v->shape[2], num_scales, v->shape[3]};
  WK_TRY(check_codes(kOp, "out", out));
  WK_TRY(check_dense(kOp, "out", out, out->dtype, 4, codes_shape));
  WK_TRY(check_dense(kOp, "out_scale", out_scale, WK_FLOAT32, 4, scales_shape));
  WK_TRY(check_dense(kOp, "mean", mean, WK_FLOAT32, 3, codes_shape));
  return require_all_cpu(kOp, {out, out_scale, mean, v});
}

// Means and scales from all tokens. Parts are cut by the shape, inside blocks where there are such, and joined in
// order.
wk_status measure(const QuantizeValuesKernels &kernels, const QuantizeValues &call, int64_t batch) {
  const int64_t width = call.v.width;
  const bool has_blocks = call.num_scales > 1;
  const Split split = has_blocks ? Split{call.positions, call.positions / kPositions} : split_rows(call.length, width);
  const int64_t part_floats = width * (call.is_smooth ? 3 : 1), sample_floats = split.num_parts * part_floats;
  FloatBuffer memory;
  WK_TRY(memory.allocate(kOp, batch * sample_floats));
  parallel_for(batch * split.num_parts, 1, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const int64_t first = i / split.num_parts * call.length, part = i % split.num_parts;
      const int64_t stop = split.end(part) < call.length ? split.end(part) : call.length;
      kernels.measure(call, first + split.begin(part), first + stop, memory.data() + i * part_floats);
    }
  });
  const int64_t per_scale = has_blocks ? call.tokens_per_scale / kPositions : split.num_parts;
  parallel_for(batch * call.num_heads, 1, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const float *parts = memory.data() + i / call.num_heads * sample_floats;
      kernels.finish(call, i, {parts, split.num_parts, per_scale, part_floats});
    }
  });
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
  const int64_t batch = v->shape[0], length = v->shape[1];
  const int64_t positions = divide_up(length, kPositions) * kPositions;
  const int64_t num_scales = tokens_per_scale > 0 ? divide_up(length, tokens_per_scale) : length > 0;
  WK_TRY(check(out, out_scale, mean, v, positions, num_scales));
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
  call.tokens_per_scale = num_scales > 1 ? tokens_per_scale : positions;
  call.num_scales = num_scales;
  call.code_dtype = out->dtype;
  call.is_smooth = is_smooth;
  call.is_permuted = is_permuted;
  const int64_t token_bytes = v->shape[3] * dtype_bytes(v->dtype);
  call.finds_scales = !is_smooth && call.tokens_per_scale <= kCachedBytes / (token_bytes > 0 ? token_bytes : 1);
  call.is_aligned = reinterpret_cast<uintptr_t>(out->data) % kLineBytes == 0;

  if (!is_smooth || length == 0) {
    for (int64_t i = 0; i < element_count(*mean); ++i) call.mean[i] = 0.0f;
  }
  if (element_count(*out) == 0) return WK_OK;
  call.piece_tokens = call.finds_scales ? call.tokens_per_scale : kPositions;
  call.num_pieces = divide_up(positions, call.piece_tokens);
  if (!call.finds_scales) WK_TRY(measure(*kernels, call, batch));
  prefer_huge_pages(out);
  parallel_for(batch * call.num_pieces * call.num_heads, rows_per_piece(call.piece_tokens * v->shape[3]),
               [&](int64_t begin, int64_t end) { kernels->encode(call, begin, end); });
  return WK_OK;
}
