// SPDX-License-Identifier: Apache-2.0
#include <cstring>

#include "common/memory.h"
#include "common/parallel.h"
#include "common/reduce.h"
#include "ops/layer_norm_modulate/layer_norm_modulate_cpu.h"

namespace wk {
namespace {

constexpr const char *kOp = "layer_norm_modulate";

struct Arguments {
  const wk_tensor *x, *scale, *shift, *weight, *bias, *index;
  double eps;
};

// fp32 copies that the kernels' views point into.
struct Parameters {
  FloatTable scale, shift;
  FloatVector weight, bias;
};

wk_status check_inputs(const Arguments &arguments, const wk_tensor *out, const char *out_name) {
  WK_TRY(check_floating(kOp, "x", arguments.x));
  WK_REQUIRE(arguments.x->ndim == 3, "[%s] x must have 3 dimensions, got %d", kOp, arguments.x->ndim);
  WK_TRY(check_same_shape(kOp, out_name, *out, "x", *arguments.x));
  WK_REQUIRE(!arguments.scale == !arguments.shift, "[%s] scale and shift must come together, got one of them", kOp);
  WK_REQUIRE(!arguments.weight == !arguments.bias, "[%s] weight and bias must come together, got one of them", kOp);
  WK_REQUIRE(!arguments.scale || arguments.scale->ndim == 3, "[%s] scale must have 3 dimensions, got %d", kOp,
             arguments.scale->ndim);
  return require_all_cpu(
      kOp, {arguments.x, out, arguments.scale, arguments.shift, arguments.weight, arguments.bias, arguments.index});
}

wk_status check(const Arguments &arguments, const wk_tensor *out, const char *out_name) {
  WK_TRY(check_floating(kOp, out_name, out));
  return check_inputs(arguments, out, out_name);
}

wk_status read_inputs(const Arguments &arguments, Parameters *parameters, LayerNormModulateInputs *in) {
  const wk_tensor &x = *arguments.x;
  const int64_t batch = x.shape[0], width = x.shape[2];
  const int64_t num_rows = arguments.scale ? arguments.scale->shape[1] : 1;
  WK_TRY(fold_rows(kOp, "x", x, &in->x));
  WK_TRY(parameters->scale.read(kOp, "scale", arguments.scale, batch, num_rows, width));
  WK_TRY(parameters->shift.read(kOp, "shift", arguments.shift, batch, num_rows, width));
  WK_TRY(parameters->weight.read(kOp, "weight", arguments.weight, width, 1.0f));
  WK_TRY(parameters->bias.read(kOp, "bias", arguments.bias, width));
  WK_TRY(read_row_index(kOp, arguments.index, batch, x.shape[1], num_rows, &in->index));
  in->scale = parameters->scale.rows();
  in->weight = parameters->weight.data();
  in->bias = parameters->bias.data();
  in->length = x.shape[1];
  in->eps = static_cast<float>(arguments.eps);
  return WK_OK;
}

struct Gradients {
  const wk_tensor *scale, *shift, *weight, *bias;

  bool any_table() const { return scale || shift; }
  bool any_vector() const { return weight || bias; }
};

wk_status check_gradient(const char *name, const wk_tensor *gradient, const char *of_name, const wk_tensor *of) {
  if (!gradient) return WK_OK;
  WK_REQUIRE(of, "[%s] %s must be NULL where %s is, got a tensor", kOp, name, of_name);
  WK_TRY(check_floating(kOp, name, gradient));
  WK_TRY(check_same_shape(kOp, name, *gradient, of_name, *of));
  return require_all_cpu(kOp, {gradient});
}

wk_status check_gradients(const Gradients &gradients, const Arguments &arguments) {
  WK_TRY(check_gradient("grad_scale", gradients.scale, "scale", arguments.scale));
  WK_TRY(check_gradient("grad_shift", gradients.shift, "shift", arguments.shift));
  WK_TRY(check_gradient("grad_weight", gradients.weight, "weight", arguments.weight));
  return check_gradient("grad_bias", gradients.bias, "bias", arguments.bias);
}

// One part's memory: a row of D, then [R, D] for scale and shift, then [D] for weight and bias, as far as wanted.
struct PartLayout {
  int64_t width, table_floats, part_floats;
  bool has_table, has_vector;

  PartLayout(int64_t row_width, int64_t num_rows, const Gradients &gradients)
      : width(row_width),
        table_floats(num_rows * row_width),
        has_table(gradients.any_table()),
        has_vector(gradients.any_vector()) {
    part_floats = width + (has_table ? 2 * table_floats : 0) + (has_vector ? 2 * width : 0);
  }

  LayerNormModulateSums sums(float *part) const {
    LayerNormModulateSums result;
    float *next = part + width;
    if (has_table) {
      result.scale = next;
      result.shift = next + table_floats;
      next += 2 * table_floats;
    }
    if (has_vector) {
      result.weight = next;
      result.bias = next + width;
    }
    return result;
  }
};

void write_gradients(const PartLayout &layout, float *parts, int64_t batch, int64_t parts_per_sample,
                     const Gradients &gradients) {
  const LayerNormModulateSums first = layout.sums(parts);
  if (gradients.weight) {
    sum_vectors(first.weight, batch * parts_per_sample, layout.part_floats, *gradients.weight);
  }
  if (gradients.bias) sum_vectors(first.bias, batch * parts_per_sample, layout.part_floats, *gradients.bias);
  if (gradients.scale) sum_tables(first.scale, parts_per_sample, layout.part_floats, *gradients.scale);
  if (gradients.shift) sum_tables(first.shift, parts_per_sample, layout.part_floats, *gradients.shift);
}

}  // namespace
}  // namespace wk

using namespace wk;

extern "C" wk_status wk_layer_norm_modulate(const wk_tensor *out, const wk_tensor *x, const wk_tensor *scale,
                                            const wk_tensor *shift, const wk_tensor *weight, const wk_tensor *bias,
                                            const wk_tensor *index, double eps, void * /*stream*/) {
  const Arguments arguments = {x, scale, shift, weight, bias, index, eps};
  WK_TRY(check(arguments, out, "out"));
  const LayerNormModulateKernels *kernels;
  WK_TRY(select_layer_norm_modulate_kernels(&kernels));
  Parameters parameters;
  LayerNormModulateForward call;
  WK_TRY(read_inputs(arguments, &parameters, &call.in));
  WK_TRY(fold_rows(kOp, "out", *out, &call.out));
  call.shift = parameters.shift.rows();
  prefer_huge_pages(out);
  parallel_for(call.out.count, rows_per_piece(call.out.width),
               [&](int64_t begin, int64_t end) { kernels->forward(call, begin, end); });
  return WK_OK;
}

extern "C" wk_status wk_layer_norm_modulate_8bit(const wk_tensor *out, const wk_tensor *out_scale, const wk_tensor *x,
                                                 const wk_tensor *scale, const wk_tensor *shift,
                                                 const wk_tensor *weight, const wk_tensor *bias, const wk_tensor *index,
                                                 double eps, void * /*stream*/) {
  const Arguments arguments = {x, scale, shift, weight, bias, index, eps};
  WK_TRY(check_codes(kOp, "out", out));
  WK_TRY(check_inputs(arguments, out, "out"));
  WK_TRY(check_row_scales(kOp, "out_scale", out_scale, *out));
  WK_TRY(require_all_cpu(kOp, {out_scale}));
  const LayerNormModulateKernels *kernels;
  WK_TRY(select_layer_norm_modulate_kernels(&kernels));
  Parameters parameters;
  LayerNormModulate8bit call;
  WK_TRY(read_inputs(arguments, &parameters, &call.in));
  WK_TRY(fold_rows(kOp, "out", *out, &call.out));
  call.shift = parameters.shift.rows();
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
  const Arguments arguments = {x, scale, shift, weight, bias, index, eps};
  const Gradients gradients = {grad_scale, grad_shift, grad_weight, grad_bias};
  WK_TRY(check(arguments, grad_out, "grad_out"));
  WK_TRY(check_gradient("grad_x", grad_x, "x", x));
  if (grad_x) WK_TRY(check_same_dtype(kOp, "grad_x", *grad_x, "x", *x));
  WK_TRY(check_gradients(gradients, arguments));

  const LayerNormModulateKernels *kernels;
  WK_TRY(select_layer_norm_modulate_kernels(&kernels));
  Parameters parameters;
  LayerNormModulateBackward call;
  WK_TRY(read_inputs(arguments, &parameters, &call.in));
  WK_TRY(fold_rows(kOp, "grad_out", *grad_out, &call.grad_out));
  WK_TRY(fold_optional_rows(kOp, "grad_x", grad_x, &call.grad_x));

  const int64_t batch = x->shape[0];
  const Split split = split_tokens(call.in.length, call.in.x.width, call.in.index.num_rows);
  const PartLayout layout(call.in.x.width, call.in.index.num_rows, gradients);
  FloatBuffer parts;
  WK_TRY(parts.allocate(kOp, batch * split.num_parts * layout.part_floats));
  prefer_huge_pages(grad_x);
  parallel_for(batch * split.num_parts, 1, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      float *part = parts.data() + i * layout.part_floats;
      std::memset(part, 0, static_cast<size_t>(layout.part_floats) * sizeof(float));
      const int64_t token = i % split.num_parts;
      kernels->backward(call, i / split.num_parts, split.begin(token), split.end(token), layout.sums(part), part);
    }
  });
  write_gradients(layout, parts.data(), batch, split.num_parts, gradients);
  return WK_OK;
}
