// SPDX-License-Identifier: Apache-2.0
// LayerNorm with modulation: what every form of it, alone or fused with what precedes or follows, reads, checks and
// sums. Its loops are in common/cpu/layer_norm.h.
#pragma once
#include "common/memory.h"
#include "common/tensor.h"

namespace wk {

// What kernels read. Absent tensors arrive as a row of their neutral value: scale, shift and bias 0, weight 1.
struct LayerNormInputs {
  Rows x;
  Rows scale, shift;  // fp32, rows b * R + r
  const float *weight;
  const float *bias;
  bool is_affine, is_modulated;  // whether weight and bias, scale and shift were there
  RowIndex index;
  int64_t length;  // L
  float eps;
};

// Partial sums over tokens; a null pair is not wanted.
struct LayerNormSums {
  float *scale = nullptr;  // [R, D]
  float *shift = nullptr;
  float *weight = nullptr;  // [D]
  float *bias = nullptr;
};

struct LayerNormArguments {
  const wk_tensor *x, *scale, *shift, *weight, *bias, *index;
  double eps;
};

// fp32 copies that the kernels' views point into.
struct LayerNormParameters {
  FloatTable scale, shift;
  FloatVector weight, bias;
};

// `out`, named so in messages, is the result or its gradient.
wk_status check_layer_norm(const char *op, const LayerNormArguments &arguments, const wk_tensor *out,
                           const char *out_name);

// Needs checked arguments. num_rows: R where there is no scale to tell it.
wk_status read_layer_norm(const char *op, const LayerNormArguments &arguments, LayerNormParameters *parameters,
                          LayerNormInputs *inputs, int64_t num_rows = 1);

struct LayerNormGradients {
  const wk_tensor *scale, *shift, *weight, *bias;  // NULL: not wanted

  bool any_table() const { return scale || shift; }
  bool any_vector() const { return weight || bias; }
};

// An optional gradient has the shape of its input, which must then be there.
wk_status check_gradient(const char *op, const char *name, const wk_tensor *gradient, const char *of_name,
                         const wk_tensor *of);
wk_status check_layer_norm_gradients(const char *op, const LayerNormGradients &gradients,
                                     const LayerNormArguments &arguments);

// The memory of one part of the tokens: a row of D, then [R, D] for scale and shift, then [D] for weight and bias, as
// far as wanted, then what the caller asks for.
class LayerNormParts {
 public:
  LayerNormParts(int64_t width, int64_t num_rows, const LayerNormGradients &gradients, int64_t extra_floats = 0);
  wk_status allocate(const char *op, int64_t num_parts) { return parts_.allocate(op, num_parts * part_floats_); }

  // Zeros a part and returns it: its row comes first.
  float *clear(int64_t part) const;
  LayerNormSums sums(float *part) const;
  float *extra(float *part) const { return part + extra_at_; }
  int64_t part_floats() const { return part_floats_; }
  float *first() const { return parts_.data(); }

  // Sums the parts, those of one sample following each other, into the gradients.
  void write(int64_t batch, int64_t parts_per_sample, const LayerNormGradients &gradients) const;

 private:
  int64_t width_, table_floats_, extra_at_, part_floats_;
  bool has_table_, has_vector_;
  FloatBuffer parts_;
};

}  // namespace wk
