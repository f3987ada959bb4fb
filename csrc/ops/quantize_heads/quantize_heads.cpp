// SPDX-License-Identifier: Apache-2.0
#include "common/memory.h"
#include "common/parallel.h"
#include "common/token_mean.h"
#include "ops/quantize_heads/quantize_heads_cpu.h"

namespace wk {
namespace {

constexpr const char *kOp = "quantize_heads";
constexpr int64_t kPieceTokens = 64;  // at least, where a head has as many

wk_status check(const wk_tensor *out, const wk_tensor *out_scale, const wk_tensor *mean, const wk_tensor *x,
                int64_t num_blocks) {
  const int64_t *shape = x->shape;
  const int64_t codes_shape[4] = {shape[0], shape[2], shape[1], shape[3]};
  const int64_t scales_shape[3] = {shape[0], shape[2], num_blocks}, mean_shape[3] = {shape[0], shape[2], shape[3]};
  WK_TRY(check_dense(kOp, "out", out, WK_INT8, 4, codes_shape));
  WK_TRY(check_dense(kOp, "out_scale", out_scale, WK_FLOAT32, 3, scales_shape));
  WK_TRY(check_dense(kOp, "mean", mean, WK_FLOAT32, 3, mean_shape));
  WK_REQUIRE(shape[3] <= 1 || x->stride[3] == 1, "[%s] x must have a contiguous last dimension, got stride %lld", kOp,
             static_cast<long long>(x->stride[3]));
  return require_all_cpu(kOp, {out, out_scale, mean, x});
}

}  // namespace
}  // namespace wk

using namespace wk;

extern "C" wk_status wk_quantize_heads(const wk_tensor *out, const wk_tensor *out_scale, const wk_tensor *mean,
                                       const wk_tensor *x, int64_t tokens_per_scale, int32_t is_smooth,
                                       void * /*stream*/) {
  WK_TRY(check_floating(kOp, "x", x));
  WK_REQUIRE(x->ndim == 4, "[%s] x must have 4 dimensions, got %d", kOp, x->ndim);
  WK_REQUIRE(tokens_per_scale > 0, "[%s] tokens_per_scale must be at least 1, got %lld", kOp,
             static_cast<long long>(tokens_per_scale));
  QuantizeHeads call;
  call.length = x->shape[1];
  call.num_heads = x->shape[2];
  call.head_width = x->shape[3];
  call.num_blocks = call.length / tokens_per_scale + (call.length % tokens_per_scale > 0);
  WK_TRY(check(out, out_scale, mean, x, call.num_blocks));
  const QuantizeHeadsKernels *kernels;
  WK_TRY(select_quantize_heads_kernels(&kernels));
  call.x = static_cast<const char *>(x->data);
  call.sample_stride = x->stride[0];
  call.token_stride = x->stride[1];
  call.head_stride = x->stride[2];
  call.dtype = x->dtype;
  call.out = static_cast<int8_t *>(out->data);
  call.out_scale = static_cast<float *>(out_scale->data);
  call.tokens_per_scale = tokens_per_scale;
  call.mean = is_smooth ? static_cast<const float *>(mean->data) : nullptr;
  if (is_smooth) {
    WK_TRY(write_token_mean(kOp, *mean, call.length, 0, [&](int64_t begin, int64_t end, float *sums, float *) {
      kernels->sum(call, begin, end, sums);
    }));
  } else {
    clear_token_mean(*mean);
  }
  prefer_huge_pages(out);
  if (tokens_per_scale == 1 && fits_registers(call.head_width)) {
    parallel_for(x->shape[0] * call.length, rows_per_piece(call.num_heads * call.head_width),
                 [&](int64_t begin, int64_t end) { kernels->encode_tokens(call, begin, end); });
    return WK_OK;
  }
  const int64_t block_tokens = tokens_per_scale < call.length ? tokens_per_scale : call.length;
  call.piece_blocks = block_tokens < kPieceTokens && block_tokens > 0 ? kPieceTokens / block_tokens : 1;
  call.num_pieces = (call.num_blocks + call.piece_blocks - 1) / call.piece_blocks;
  parallel_for(x->shape[0] * call.num_pieces * call.num_heads,
               rows_per_piece(call.piece_blocks * block_tokens * call.head_width),
               [&](int64_t begin, int64_t end) { kernels->encode_pieces(call, begin, end); });
  return WK_OK;
}
