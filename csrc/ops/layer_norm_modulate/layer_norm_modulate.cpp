// SPDX-License-Identifier: Apache-2.0
#include "common/parallel.h"
#include "common/reduce.h"
#include "ops/layer_norm_modulate/layer_norm_modulate_cpu.h"

namespace wk {
namespace {

constexpr const char *kOp = "layer_norm_modulate";

wk_status check(const LayerNormArguments &arguments, const wk_tensor *out, const char *out_name) {
  WK_TRY(check_floating(kOp, out_name, out));
  return check_layer_norm(kOp, arguments, out, out_name);
}

}  // namespace
}  // namespace wk

using namespace wk;

extern "C" wk_status wk_layer_norm_modulate(const wk_tensor *out, const wk_tensor *x, const wk_tensor *scale,
                                            const wk_tensor *shift, const wk_tensor *weight, const wk_tensor *bias,
                                            const wk_tensor *index, double eps, void * /*stream*/) {
  const LayerNormArguments arguments = {x, scale, shift, weight, bias, index, eps};
  WK_TRY(check(arguments, out, "out"));
  const LayerNormModulateKernels *kernels;
  WK_TRY(select_layer_norm_modulate_kernels(&kernels));
  LayerNormParameters parameters;
  LayerNormModulateForward call;
  WK_TRY(read_layer_norm(kOp, arguments, &parameters, &call.in));
  WK_TRY(fold_rows(kOp, "out", *out, &call.out));
  prefer_huge_pages(out);
  parallel_for(call.out.count, rows_per_piece(call.out.width),
               [&](int64_t begin, int64_t end) { kernels->forward(call, begin, end); });
  return WK_OK;
}

extern "C" wk_status wk_layer_norm_modulate_8bit(const wk_tensor *out, const wk_tensor *out_scale, const wk_tensor *x,
                                                 const wk_tensor *scale, const wk_tensor *shift,
                                                 const wk_tensor *weight, const wk_tensor *bias, const wk_tensor *index,
                                                 double eps, void * /*stream*/) {
  const LayerNormArguments arguments = {x, scale, shift, weight, bias, index, eps};
  WK_TRY(check_codes(kOp, "out", out));
  WK_TRY(check_layer_norm(kOp, arguments, out, "out"));
  WK_TRY(check_row_scales(kOp, "out_scale", out_scale, *out));
  WK_TRY(require_all_cpu(kOp, {out_scale}));
  const LayerNormModulateKernels *kernels;
  WK_TRY(select_layer_norm_modulate_kernels(&kernels));
  LayerNormParameters parameters;
  LayerNormModulate8bit call;
  WK_TRY(read_layer_norm(kOp, arguments, &parameters, &call.in));
  WK_TRY(fold_rows(kOp, "out", *out, &call.out));
  call.out_scale = static_cast<float *>(out_scale->data);
  const int64_t width = call.out.width;
  FloatBuffer rows;
  WK_TRY(rows.allocate(kOp, num_threads() * width));
  prefer_huge_pages(out);
  parallel_for_threads(call.out.count, rows_per_piece(width), [&](int64_t begin, int64_t end, int32_t thread) {
    kernels->forward_8bit(call, begin, end, rows.data() + thread * width);
  });
  return WK_OK;
}

extern "C" wk_status wk_layer_norm_modulate_backward(const wk_tensor *grad_x, const wk_tensor *grad_scale,
                                                     const wk_tensor *grad_shift, const wk_tensor *grad_weight,
                                                     const wk_tensor *grad_bias, const wk_tensor *grad_out,
                                                     const wk_tensor *x, const wk_tensor *scale, const wk_tensor *shift,
                                                     const wk_tensor *weight, const wk_tensor *bias,
                                                     const wk_tensor *index, double eps, void * /*stream*/) {
  const LayerNormArguments arguments = {x, scale, shift, weight, bias, index, eps};
  const LayerNormGradients gradients = {grad_scale, grad_shift, grad_weight, grad_bias};
  WK_TRY(check(arguments, grad_out, "grad_out"));
  WK_TRY(check_gradient(kOp, "grad_x", grad_x, "x", x));
  if (grad_x) WK_TRY(check_same_dtype(kOp, "grad_x", *grad_x, "x", *x));
  WK_TRY(check_layer_norm_gradients(kOp, gradients, arguments));

  const LayerNormModulateKernels *kernels;
  WK_TRY(select_layer_norm_modulate_kernels(&kernels));
  LayerNormParameters parameters;
  LayerNormModulateBackward call;
  WK_TRY(read_layer_norm(kOp, arguments, &parameters, &call.in));
  WK_TRY(fold_rows(kOp, "grad_out", *grad_out, &call.grad_out));
  WK_TRY(fold_optional_rows(kOp, "grad_x", grad_x, &call.grad_x));

  const int64_t batch = x->shape[0];
  const Split split = split_tokens(call.in.length, call.in.x.width, call.in.index.num_rows);
  LayerNormParts parts(call.in.x.width, call.in.index.num_rows, gradients);
  WK_TRY(parts.allocate(kOp, batch * split.num_parts));
  prefer_huge_pages(grad_x);
  parallel_for(batch * split.num_parts, 1, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      float *part = parts.clear(i);
      const int64_t token = i % split.num_parts;
      kernels->backward(call, i / split.num_parts, split.begin(token), split.end(token), parts.sums(part), part);
    }
  });
  parts.write(batch, split.num_parts, gradients);
  return WK_OK;
}
