// SPDX-License-Identifier: Apache-2.0
#include "common/layer_norm.h"

#include <cstring>

namespace wk {

wk_status check_layer_norm(const char *op, const LayerNormArguments &arguments, const wk_tensor *out,
                           const char *out_name) {
  WK_TRY(check_floating(op, "x", arguments.x));
  WK_REQUIRE(arguments.x->ndim == 3, "[%s] x must have 3 dimensions, got %d", op, arguments.x->ndim);
  WK_TRY(check_same_shape(op, out_name, *out, "x", *arguments.x));
  WK_REQUIRE(!arguments.scale == !arguments.shift, "[%s] scale and shift must come together, got one of them", op);
  WK_REQUIRE(!arguments.weight == !arguments.bias, "[%s] weight and bias must come together, got one of them", op);
  WK_REQUIRE(!arguments.scale || arguments.scale->ndim == 3, "[%s] scale must have 3 dimensions, got %d", op,
             arguments.scale->ndim);
  return require_all_cpu(
      op, {arguments.x, out, arguments.scale, arguments.shift, arguments.weight, arguments.bias, arguments.index});
}

wk_status read_layer_norm(const char *op, const LayerNormArguments &arguments, LayerNormParameters *parameters,
                          LayerNormInputs *inputs, int64_t num_rows) {
  const wk_tensor &x = *arguments.x;
  const int64_t batch = x.shape[0], width = x.shape[2];
  if (arguments.scale) num_rows = arguments.scale->shape[1];
  WK_TRY(fold_rows(op, "x", x, &inputs->x));
  WK_TRY(parameters->scale.read(op, "scale", arguments.scale, batch, num_rows, width));
  WK_TRY(parameters->shift.read(op, "shift", arguments.shift, batch, num_rows, width));
  WK_TRY(parameters->weight.read(op, "weight", arguments.weight, width, 1.0f));
  WK_TRY(parameters->bias.read(op, "bias", arguments.bias, width));
  WK_TRY(read_row_index(op, arguments.index, batch, x.shape[1], num_rows, &inputs->index));
  inputs->scale = parameters->scale.rows();
  inputs->shift = parameters->shift.rows();
  inputs->weight = parameters->weight.data();
  inputs->bias = parameters->bias.data();
  inputs->is_affine = arguments.weight != nullptr;
  inputs->is_modulated = arguments.scale != nullptr;
  inputs->length = x.shape[1];
  inputs->eps = static_cast<float>(arguments.eps);
  return WK_OK;
}

wk_status check_gradient(const char *op, const char *name, const wk_tensor *gradient, const char *of_name,
                         const wk_tensor *of) {
  if (!gradient) return WK_OK;
  WK_REQUIRE(of, "[%s] %s must be NULL where %s is, got a tensor", op, name, of_name);
  WK_TRY(check_floating(op, name, gradient));
  WK_TRY(check_same_shape(op, name, *gradient, of_name, *of));
  return require_all_cpu(op, {gradient});
}

wk_status check_layer_norm_gradients(const char *op, const LayerNormGradients &gradients,
                                     const LayerNormArguments &arguments) {
  WK_TRY(check_gradient(op, "grad_scale", gradients.scale, "scale", arguments.scale));
  WK_TRY(check_gradient(op, "grad_shift", gradients.shift, "shift", arguments.shift));
  WK_TRY(check_gradient(op, "grad_weight", gradients.weight, "weight", arguments.weight));
  return check_gradient(op, "grad_bias", gradients.bias, "bias", arguments.bias);
}

LayerNormParts::LayerNormParts(int64_t width, int64_t num_rows, const LayerNormGradients &gradients,
                               int64_t extra_floats)
    : width_(width),
      table_floats_(num_rows * width),
      has_table_(gradients.any_table()),
      has_vector_(gradients.any_vector()) {
  extra_at_ = width + (has_table_ ? 2 * table_floats_ : 0) + (has_vector_ ? 2 * width : 0);
  part_floats_ = extra_at_ + extra_floats;
}

float *LayerNormParts::clear(int64_t part) const {
  float *const data = parts_.data() + part * part_floats_;
  std::memset(data, 0, static_cast<size_t>(part_floats_) * sizeof(float));
  return data;
}

LayerNormSums LayerNormParts::sums(float *part) const {
  LayerNormSums result;
  float *next = part + width_;
  if (has_table_) {
    result.scale = next;
    result.shift = next + table_floats_;
    next += 2 * table_floats_;
  }
  if (has_vector_) {
    result.weight = next;
    result.bias = next + width_;
  }
  return result;
}

void LayerNormParts::write(int64_t batch, int64_t parts_per_sample, const LayerNormGradients &gradients) const {
  const LayerNormSums sum = sums(parts_.data());
  if (gradients.weight) sum_vectors(sum.weight, batch * parts_per_sample, part_floats_, *gradients.weight);
  if (gradients.bias) sum_vectors(sum.bias, batch * parts_per_sample, part_floats_, *gradients.bias);
  if (gradients.scale) sum_tables(sum.scale, parts_per_sample, part_floats_, *gradients.scale);
  if (gradients.shift) sum_tables(sum.shift, parts_per_sample, part_floats_, *gradients.shift);
}

}  // namespace wk
