// SPDX-License-Identifier: Apache-2.0
#include "common/memory.h"
#include "common/parallel.h"
#include "ops/merge_attention/merge_attention_cpu.h"

namespace wk {
namespace {

constexpr const char *kOp = "merge_attention";

// [B, L, N, H] of out_a's shape.
wk_status check_rows(const char *name, const wk_tensor *tensor, const wk_tensor *out_a) {
  WK_TRY(check_floating(kOp, name, tensor));
  return check_same_shape(kOp, name, *tensor, "out_a", *out_a);
}

wk_status check_lse(const char *name, const wk_tensor *lse, const wk_tensor *out_a) {
  const int64_t shape[3] = {out_a->shape[0], out_a->shape[2], out_a->shape[1]};
  return check_dense(kOp, name, lse, WK_FLOAT32, 3, shape);
}

wk_status check_inputs(const wk_tensor *out_a, const wk_tensor *lse_a, const wk_tensor *out_b, const wk_tensor *lse_b) {
  WK_TRY(check_floating(kOp, "out_a", out_a));
  WK_REQUIRE(out_a->ndim == 4, "[%s] out_a must have 4 dimensions, got %d", kOp, out_a->ndim);
  WK_TRY(check_rows("out_b", out_b, out_a));
  WK_TRY(check_lse("lse_a", lse_a, out_a));
  WK_TRY(check_lse("lse_b", lse_b, out_a));
  return require_all_cpu(kOp, {out_a, lse_a, out_b, lse_b});
}

// A gradient of rows, in the type of what it belongs to; NULL is one that is not there.
wk_status check_gradient(const char *name, const wk_tensor *gradient, const char *like_name, const wk_tensor *like) {
  if (!gradient) return WK_OK;
  WK_TRY(check_floating(kOp, name, gradient));
  WK_TRY(check_same_shape(kOp, name, *gradient, like_name, *like));
  WK_TRY(check_same_dtype(kOp, name, *gradient, like_name, *like));
  return require_all_cpu(kOp, {gradient});
}

wk_status check_lse_gradient(const char *name, const wk_tensor *gradient, const wk_tensor *out_a) {
  if (!gradient) return WK_OK;
  WK_TRY(check_lse(name, gradient, out_a));
  return require_all_cpu(kOp, {gradient});
}

float *floats(const wk_tensor *tensor) { return tensor ? static_cast<float *>(tensor->data) : nullptr; }

int64_t tokens_per_piece(const wk_tensor &out) { return rows_per_piece(out.shape[2] * out.shape[3]); }

}  // namespace
}  // namespace wk

using namespace wk;

extern "C" wk_status wk_merge_attention(const wk_tensor *out, const wk_tensor *lse, const wk_tensor *out_a,
                                        const wk_tensor *lse_a, const wk_tensor *out_b, const wk_tensor *lse_b,
                                        void * /*stream*/) {
  WK_TRY(check_inputs(out_a, lse_a, out_b, lse_b));
  WK_TRY(check_rows("out", out, out_a));
  WK_TRY(check_same_dtype(kOp, "out", *out, "out_a", *out_a));
  WK_TRY(check_lse("lse", lse, out_a));
  WK_TRY(require_all_cpu(kOp, {out, lse}));
  const MergeAttentionKernels *kernels;
  WK_TRY(select_merge_attention_kernels(&kernels));
  MergeAttentionForward call;
  WK_TRY(fold_rows(kOp, "out", *out, &call.out));
  WK_TRY(fold_rows(kOp, "out_a", *out_a, &call.out_a));
  WK_TRY(fold_rows(kOp, "out_b", *out_b, &call.out_b));
  call.lse = floats(lse);
  call.lse_a = floats(lse_a);
  call.lse_b = floats(lse_b);
  call.length = out->shape[1];
  call.num_heads = out->shape[2];
  prefer_huge_pages(out);
  parallel_for(out->shape[0] * call.length, tokens_per_piece(*out),
               [&](int64_t begin, int64_t end) { kernels->forward(call, begin, end); });
  return WK_OK;
}

extern "C" wk_status wk_merge_attention_backward(const wk_tensor *grad_out_a, const wk_tensor *grad_lse_a,
                                                 const wk_tensor *grad_out_b, const wk_tensor *grad_lse_b,
                                                 const wk_tensor *grad_out, const wk_tensor *grad_lse,
                                                 const wk_tensor *out_a, const wk_tensor *lse_a, const wk_tensor *out_b,
                                                 const wk_tensor *lse_b, void * /*stream*/) {
  WK_TRY(check_inputs(out_a, lse_a, out_b, lse_b));
  WK_TRY(check_gradient("grad_out_a", grad_out_a, "out_a", out_a));
  WK_TRY(check_gradient("grad_out_b", grad_out_b, "out_b", out_b));
  WK_TRY(check_gradient("grad_out", grad_out, "out_a", out_a));
  WK_TRY(check_lse_gradient("grad_lse_a", grad_lse_a, out_a));
  WK_TRY(check_lse_gradient("grad_lse_b", grad_lse_b, out_a));
  WK_TRY(check_lse_gradient("grad_lse", grad_lse, out_a));
  const MergeAttentionKernels *kernels;
  WK_TRY(select_merge_attention_kernels(&kernels));
  MergeAttentionBackward call;
  WK_TRY(fold_optional_rows(kOp, "grad_out_a", grad_out_a, &call.grad_out_a));
  WK_TRY(fold_optional_rows(kOp, "grad_out_b", grad_out_b, &call.grad_out_b));
  WK_TRY(fold_optional_rows(kOp, "grad_out", grad_out, &call.grad_out));
  WK_TRY(fold_rows(kOp, "out_a", *out_a, &call.out_a));
  WK_TRY(fold_rows(kOp, "out_b", *out_b, &call.out_b));
  call.grad_lse_a = floats(grad_lse_a);
  call.grad_lse_b = floats(grad_lse_b);
  call.grad_lse = floats(grad_lse);
  call.lse_a = floats(lse_a);
  call.lse_b = floats(lse_b);
  call.length = out_a->shape[1];
  call.num_heads = out_a->shape[2];
  prefer_huge_pages(grad_out_a);
  prefer_huge_pages(grad_out_b);
  parallel_for(out_a->shape[0] * call.length, tokens_per_piece(*out_a),
               [&](int64_t begin, int64_t end) { kernels->backward(call, begin, end); });
  return WK_OK;
}
