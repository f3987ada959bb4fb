// SPDX-License-Identifier: Apache-2.0
#include "common/parallel.h"
#include "common/reduce.h"
#include "ops/gate_residual_layer_norm_modulate/gate_residual_layer_norm_modulate_cpu.h"

namespace wk {
namespace {

constexpr const char *kOp = "gate_residual_layer_norm_modulate";

struct Residual {
  const wk_tensor *y, *gate;

  int64_t num_rows() const { return gate ? gate->shape[1] : 1; }
};

// `norm.x` is the sum and named so in messages.
wk_status check(const Residual &residual, const LayerNormArguments &norm, const wk_tensor *out, const char *out_name) {
  WK_TRY(check_floating(kOp, "sum", norm.x));
  WK_REQUIRE(norm.x->ndim == 3, "[%s] sum must have 3 dimensions, got %d", kOp, norm.x->ndim);
  WK_TRY(check_floating(kOp, "y", residual.y));
  WK_TRY(check_same_shape(kOp, "y", *residual.y, "sum", *norm.x));
  WK_REQUIRE(!residual.gate || residual.gate->ndim == 3, "[%s] gate must have 3 dimensions, got %d", kOp,
             residual.gate->ndim);
  WK_TRY(require_all_cpu(kOp, {residual.y, residual.gate}));
  return check_layer_norm(kOp, norm, out, out_name);
}

// An optional tensor of the sum's shape, and of the dtype of `as`.
wk_status check_sum_like(const char *name, const wk_tensor *tensor, const wk_tensor &sum, const char *as_name,
                         const wk_tensor &as) {
  if (!tensor) return WK_OK;
  WK_TRY(check_floating(kOp, name, tensor));
  WK_TRY(check_same_shape(kOp, name, *tensor, "sum", sum));
  WK_TRY(check_same_dtype(kOp, name, *tensor, as_name, as));
  return require_all_cpu(kOp, {tensor});
}

// fp32 copies that the kernels' views point into.
struct Parameters {
  LayerNormParameters norm;
  FloatTable gate;
};

// What both directions read.
template <class Call>
wk_status read(const Residual &residual, const LayerNormArguments &norm, Parameters *parameters, Call *call) {
  WK_TRY(fold_rows(kOp, "sum", *norm.x, &call->norm.x));
  WK_TRY(fold_rows(kOp, "y", *residual.y, &call->y));
  WK_TRY(read_layer_norm(kOp, norm, &parameters->norm, &call->norm, residual.num_rows()));
  WK_TRY(parameters->gate.read(kOp, "gate", residual.gate, norm.x->shape[0], call->norm.index.num_rows,
                               norm.x->shape[2], 1.0f));
  call->gate = parameters->gate.rows();
  return WK_OK;
}

wk_status read_forward(const wk_tensor *out, const wk_tensor *x, const Residual &residual,
                       const LayerNormArguments &norm, Parameters *parameters,
                       GateResidualLayerNormModulateForward *call) {
  WK_TRY(check_floating(kOp, "x", x));
  WK_TRY(check(residual, norm, out, "out"));
  WK_TRY(check_sum_like("x", x, *norm.x, "sum", *norm.x));
  WK_TRY(read(residual, norm, parameters, call));
  WK_TRY(fold_rows(kOp, "x", *x, &call->x));
  WK_TRY(fold_rows(kOp, "out", *out, &call->out));
  prefer_huge_pages(norm.x);
  prefer_huge_pages(out);
  return WK_OK;
}

}  // namespace
}  // namespace wk

using namespace wk;

extern "C" wk_status wk_gate_residual_layer_norm_modulate(const wk_tensor *sum, const wk_tensor *out,
                                                          const wk_tensor *x, const wk_tensor *y, const wk_tensor *gate,
                                                          const wk_tensor *scale, const wk_tensor *shift,
                                                          const wk_tensor *weight, const wk_tensor *bias,
                                                          const wk_tensor *index, double eps, void * /*stream*/) {
  WK_TRY(check_floating(kOp, "out", out));
  const GateResidualLayerNormModulateKernels *kernels;
  WK_TRY(select_gate_residual_layer_norm_modulate_kernels(&kernels));
  Parameters parameters;
  GateResidualLayerNormModulateForward call = {};
  WK_TRY(read_forward(out, x, {y, gate}, {sum, scale, shift, weight, bias, index, eps}, &parameters, &call));
  parallel_for(call.x.count, rows_per_piece(call.x.width),
               [&](int64_t begin, int64_t end) { kernels->forward(call, begin, end); });
  return WK_OK;
}

extern "C" wk_status wk_gate_residual_layer_norm_modulate_8bit(const wk_tensor *sum, const wk_tensor *out,
                                                               const wk_tensor *out_scale, const wk_tensor *x,
                                                               const wk_tensor *y, const wk_tensor *gate,
                                                               const wk_tensor *scale, const wk_tensor *shift,
                                                               const wk_tensor *weight, const wk_tensor *bias,
                                                               const wk_tensor *index, double eps, void * /*stream*/) {
  WK_TRY(check_codes(kOp, "out", out));
  WK_TRY(check_row_scales(kOp, "out_scale", out_scale, *out));
  WK_TRY(require_all_cpu(kOp, {out_scale}));
  const GateResidualLayerNormModulateKernels *kernels;
  WK_TRY(select_gate_residual_layer_norm_modulate_kernels(&kernels));
  Parameters parameters;
  GateResidualLayerNormModulateForward call = {};
  WK_TRY(read_forward(out, x, {y, gate}, {sum, scale, shift, weight, bias, index, eps}, &parameters, &call));
  call.out_scale = static_cast<float *>(out_scale->data);
  const int64_t width = call.x.width;
  FloatBuffer rows;
  WK_TRY(rows.allocate(kOp, num_threads() * width));
  parallel_for_threads(call.x.count, rows_per_piece(width), [&](int64_t begin, int64_t end, int32_t thread) {
    kernels->forward_8bit(call, begin, end, rows.data() + thread * width);
  });
  return WK_OK;
}

extern "C" wk_status wk_gate_residual_layer_norm_modulate_backward(
    const wk_tensor *grad_x, const wk_tensor *grad_y, const wk_tensor *grad_gate, const wk_tensor *grad_scale,
    const wk_tensor *grad_shift, const wk_tensor *grad_weight, const wk_tensor *grad_bias, const wk_tensor *grad_sum,
    const wk_tensor *grad_out, const wk_tensor *y, const wk_tensor *sum, const wk_tensor *gate, const wk_tensor *scale,
    const wk_tensor *shift, const wk_tensor *weight, const wk_tensor *bias, const wk_tensor *index, double eps,
    void * /*stream*/) {
  const LayerNormArguments norm = {sum, scale, shift, weight, bias, index, eps};
  const LayerNormGradients gradients = {grad_scale, grad_shift, grad_weight, grad_bias};
  if (grad_out) WK_TRY(check_floating(kOp, "grad_out", grad_out));
  WK_TRY(check({y, gate}, norm, grad_out ? grad_out : sum, "grad_out"));
  WK_TRY(check_sum_like("grad_x", grad_x, *sum, "sum", *sum));
  WK_TRY(check_sum_like("grad_y", grad_y, *sum, "y", *y));
  WK_TRY(check_sum_like("grad_sum", grad_sum, *sum, "sum", *sum));
  WK_TRY(check_gradient(kOp, "grad_gate", grad_gate, "gate", gate));
  WK_TRY(check_layer_norm_gradients(kOp, gradients, norm));

  const GateResidualLayerNormModulateKernels *kernels;
  WK_TRY(select_gate_residual_layer_norm_modulate_kernels(&kernels));
  Parameters parameters;
  GateResidualLayerNormModulateBackward call = {};
  WK_TRY(read({y, gate}, norm, &parameters, &call));
  WK_TRY(fold_optional_rows(kOp, "grad_x", grad_x, &call.grad_x));
  WK_TRY(fold_optional_rows(kOp, "grad_y", grad_y, &call.grad_y));
  WK_TRY(fold_optional_rows(kOp, "grad_sum", grad_sum, &call.grad_sum));
  WK_TRY(fold_optional_rows(kOp, "grad_out", grad_out, &call.grad_out));

  const int64_t batch = sum->shape[0], width = call.norm.x.width, num_rows = call.norm.index.num_rows;
  const Split split = split_tokens(call.norm.length, width, num_rows);
  LayerNormParts parts(width, num_rows, gradients, grad_gate ? num_rows * width : 0);
  WK_TRY(parts.allocate(kOp, batch * split.num_parts));
  prefer_huge_pages(grad_x);
  prefer_huge_pages(grad_y);
  parallel_for(batch * split.num_parts, 1, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      float *part = parts.clear(i);
      const GateResidualLayerNormModulateSums sums = {parts.sums(part), grad_gate ? parts.extra(part) : nullptr};
      const int64_t tokens = i % split.num_parts;
      kernels->backward(call, i / split.num_parts, split.begin(tokens), split.end(tokens), sums, part);
    }
  });
  parts.write(batch, split.num_parts, gradients);
  if (grad_gate) sum_tables(parts.extra(parts.first()), split.num_parts, parts.part_floats(), *grad_gate);
  return WK_OK;
}
