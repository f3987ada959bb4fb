// SPDX-License-Identifier: Apache-2.0
#include "common/memory.h"
#include "common/parallel.h"
#include "common/reduce.h"
#include "ops/rms_norm/rms_norm_cpu.h"
#include "ops/rms_norm/rms_norm_cuda.h"

namespace wk {
namespace {

constexpr const char *kOp = "rms_norm";

wk_status check(const wk_tensor *out, const char *out_name, const wk_tensor *x, const wk_tensor *weight) {
  WK_TRY(check_floating(kOp, "x", x));
  WK_TRY(check_floating(kOp, out_name, out));
  WK_TRY(check_floating(kOp, "weight", weight));
  WK_TRY(check_same_shape(kOp, out_name, *out, "x", *x));
  WK_TRY(check_same_dtype(kOp, out_name, *out, "x", *x));
  WK_TRY(check_shape(kOp, "weight", *weight, 1, &x->shape[x->ndim - 1]));
  WK_TRY(check_same_device(kOp, out_name, *out, "x", *x));
  return check_same_device(kOp, "weight", *weight, "x", *x);
}

wk_status forward_cpu(const wk_tensor &out, const wk_tensor &x, const wk_tensor &weight, double eps) {
  const RmsNormKernels *kernels;
  WK_TRY(select_rms_norm_kernels(&kernels));
  RmsNormForward call;
  WK_TRY(fold_rows(kOp, "out", out, &call.out));
  WK_TRY(fold_rows(kOp, "x", x, &call.x));
  FloatVector weight_values;
  WK_TRY(weight_values.read(kOp, "weight", &weight, call.x.width));
  call.weight = weight_values.data();
  call.eps = static_cast<float>(eps);
  prefer_huge_pages(&out);
  parallel_for(call.x.count, rows_per_piece(call.x.width),
               [&](int64_t begin, int64_t end) { kernels->forward(call, begin, end); });
  return WK_OK;
}

}  // namespace
}  // namespace wk

using namespace wk;

extern "C" wk_status wk_rms_norm(const wk_tensor *out, const wk_tensor *x, const wk_tensor *weight, double eps,
                                 void *stream) {
  WK_TRY(check(out, "out", x, weight));
  if (x->device == WK_CUDA) return rms_norm_forward_cuda(*out, *x, *weight, eps, stream);
  return forward_cpu(*out, *x, *weight, eps);
}

extern "C" wk_status wk_rms_norm_backward(const wk_tensor *grad_x, const wk_tensor *grad_weight,
                                          const wk_tensor *grad_out, const wk_tensor *x, const wk_tensor *weight,
                                          double eps, void * /*stream*/) {
  WK_TRY(check(grad_out, "grad_out", x, weight));
  if (grad_x) WK_TRY(check(grad_x, "grad_x", x, weight));
  if (grad_weight) WK_TRY(check(x, "x", x, grad_weight));
  WK_TRY(require_all_cpu(kOp, {x}));

  const RmsNormKernels *kernels;
  WK_TRY(select_rms_norm_kernels(&kernels));
  RmsNormBackward call;
  WK_TRY(fold_optional_rows(kOp, "grad_x", grad_x, &call.grad_x));
  WK_TRY(fold_rows(kOp, "grad_out", *grad_out, &call.grad_out));
  WK_TRY(fold_rows(kOp, "x", *x, &call.x));
  FloatVector weight_values;
  WK_TRY(weight_values.read(kOp, "weight", weight, call.x.width));
  call.weight = weight_values.data();
  call.eps = static_cast<float>(eps);

  const Split split = split_rows(call.x.count, call.x.width);
  const int64_t width = call.x.width;
  FloatBuffer partials;
  if (grad_weight) WK_TRY(partials.allocate_filled(kOp, split.num_parts * width, 0.0f));
  prefer_huge_pages(grad_x);
  parallel_for(split.num_parts, 1, [&](int64_t begin, int64_t end) {
    for (int64_t part = begin; part < end; ++part) {
      float *sums = grad_weight ? partials.data() + part * width : nullptr;
      kernels->backward(call, split.begin(part), split.end(part), sums);
    }
  });
  if (grad_weight) sum_vectors(partials.data(), split.num_parts, width, *grad_weight);
  return WK_OK;
}
