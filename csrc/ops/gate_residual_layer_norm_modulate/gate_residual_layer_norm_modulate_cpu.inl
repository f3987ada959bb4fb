// SPDX-License-Identifier: Apache-2.0
// A row of the sum is written once and normalised from the first cache. Element types are told apart anew for
// each row: three at once would make 27 copies of every loop.
#include "common/cpu/gate_residual.h"
#include "common/cpu/layer_norm.h"
#include "ops/gate_residual_layer_norm_modulate/gate_residual_layer_norm_modulate_cpu.h"

namespace wk {
namespace WK_ISA {
namespace {

// The mean is that of what was written, rounded to its type, and added up in the order of `statistics`.
template <class T, class Y>
Statistics write_sum_row(T *sum, const T *x, const Y *y, const float *gate, int64_t width, float eps) {
  const float total = sum_over(width, [&](int64_t i, auto extent) {
    const Floats value = add_gated(x + i, y + i, gate + i, extent);
    store(sum + i, value, extent);
    return round_to(value, T{});
  });
  return statistics_about(total / static_cast<float>(width), sum, width, eps);
}

// `table` is the row that the token reads.
Statistics write_sum(const GateResidualLayerNormModulateForward &call, int64_t token, int64_t table) {
  const LayerNormInputs &norm = call.norm;
  Statistics stats;
  with_dtype(call.x.dtype, [&](auto x_type) {
    with_dtype(call.y.dtype, [&](auto y_type) {
      using T = decltype(x_type);
      stats = write_sum_row(row_at<T>(norm.x, token), row_at<const T>(call.x, token),
                            row_at<const decltype(y_type)>(call.y, token), row_at<const float>(call.gate, table),
                            norm.x.width, norm.eps);
    });
  });
  return stats;
}

void forward(const GateResidualLayerNormModulateForward &call, int64_t begin, int64_t end) {
  const LayerNormInputs &norm = call.norm;
  for (int64_t token = begin; token < end; ++token) {
    const int64_t table = table_row(norm, token);
    const Statistics stats = write_sum(call, token, table);
    with_dtype(norm.x.dtype, [&](auto x_type) {
      with_dtype(call.out.dtype, [&](auto out_type) {
        using Out = decltype(out_type);
        normalise_row(row_at<Out>(call.out, token), row_at<const decltype(x_type)>(norm.x, token), stats, table, norm,
                      is_streamed<Out>(call.out));
      });
    });
  }
  finish_streaming();
}

void forward_8bit(const GateResidualLayerNormModulateForward &call, int64_t begin, int64_t end, float *row) {
  const LayerNormInputs &norm = call.norm;
  for (int64_t token = begin; token < end; ++token) {
    const int64_t table = table_row(norm, token);
    const Statistics stats = write_sum(call, token, table);
    with_dtype(norm.x.dtype, [&](auto x_type) {
      with_codes(call.out.dtype, [&](auto code) {
        call.out_scale[token] = normalise_and_encode_row(row_at<decltype(code)>(call.out, token), row,
                                                         row_at<const decltype(x_type)>(norm.x, token), stats, table,
                                                         norm, is_streamed<decltype(code)>(call.out));
      });
    });
  }
  finish_streaming();
}

// A token's rows. grad_sum null: zero.
template <class T, class Y>
struct BackwardRow {
  ResidualGradients<T, Y> to;
  const T *grad_sum, *sum;
  const Y *y;
  const float *gate;
};

// Adds what comes through the norm, unless grad_normal is null, to the gradient of the sum, and hands that on.
template <class T, class Y>
void pass_row_gradient(const BackwardRow<T, Y> &at, const float *grad_normal, const Statistics &stats, int64_t width) {
  const ResidualGradients<T, Y> to = at.to;
  const T *grad_sum = at.grad_sum;
  const Y *y = at.y;
  const float *gate = at.gate;
  const auto take = [&](int64_t i, Floats grad, auto extent) {
    if (grad_sum) grad += load(grad_sum + i, extent);
    pass_gradient(to, i, grad, y, gate, extent);
  };
  if (grad_normal) {
    each_input_gradient(grad_normal, at.sum, stats, width, take);
  } else {
    for_each_vector(width, [&](int64_t i, auto extent) { take(i, zeros(), extent); });
  }
}

// Adds the gradients of the norm's parameters and leaves that of the normalised row.
template <class T>
Statistics leave_grad_normal(const GateResidualLayerNormModulateBackward &call, int64_t sample, int64_t token,
                             const LayerNormSums &sums, float *grad_normal) {
  const LayerNormInputs &norm = call.norm;
  const int64_t at = sample * norm.length + token;
  const T *sum = row_at<const T>(norm.x, at);
  const Statistics stats = statistics(sum, norm.x.width, norm.eps);
  with_dtype(call.grad_out.dtype, [&](auto out_type) {
    add_token_gradients(grad_normal, sums, row_at<const decltype(out_type)>(call.grad_out, at), sum, stats, sample,
                        token, norm);
  });
  return stats;
}

template <class T, class Y>
void backward_token(const GateResidualLayerNormModulateBackward &call, int64_t sample, int64_t token,
                    const GateResidualLayerNormModulateSums &sums, float *row) {
  const LayerNormInputs &norm = call.norm;
  const int64_t at = sample * norm.length + token;
  const bool has_norm = call.grad_out.data != nullptr;
  const Statistics stats = has_norm ? leave_grad_normal<T>(call, sample, token, sums.norm, row) : Statistics{};
  BackwardRow<T, Y> rows;
  rows.to.x = call.grad_x.data ? row_at<T>(call.grad_x, at) : nullptr;
  rows.to.y = call.grad_y.data ? row_at<Y>(call.grad_y, at) : nullptr;
  rows.to.gate = sums.gate ? sums.gate + lookup(norm.index, sample, token) * norm.x.width : nullptr;
  rows.grad_sum = call.grad_sum.data ? row_at<const T>(call.grad_sum, at) : nullptr;
  rows.sum = row_at<const T>(norm.x, at);
  rows.y = row_at<const Y>(call.y, at);
  rows.gate = row_at<const float>(call.gate, table_row(norm, sample, token));
  if (rows.to.x || rows.to.y || rows.to.gate) pass_row_gradient(rows, has_norm ? row : nullptr, stats, norm.x.width);
}

void backward(const GateResidualLayerNormModulateBackward &call, int64_t sample, int64_t begin, int64_t end,
              const GateResidualLayerNormModulateSums &sums, float *row) {
  with_dtype(call.norm.x.dtype, [&](auto x_type) {
    with_dtype(call.y.dtype, [&](auto y_type) {
      for (int64_t token = begin; token < end; ++token) {
        backward_token<decltype(x_type), decltype(y_type)>(call, sample, token, sums, row);
      }
    });
  });
}

}  // namespace

extern const GateResidualLayerNormModulateKernels gate_residual_layer_norm_modulate_kernels = {forward, forward_8bit,
                                                                                               backward};

}  // namespace WK_ISA
}  // namespace wk
