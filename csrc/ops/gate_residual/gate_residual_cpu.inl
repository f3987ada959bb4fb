// SPDX-License-Identifier: Apache-2.0
#include "common/cpu/gate_residual.h"
#include "common/cpu/stream.h"

#include "ops/gate_residual/gate_residual_cpu.h"

namespace wk {
namespace WK_ISA {
namespace {

template <class T, class Y>
void forward_row(T *out, const T *x, const Y *y, const float *gate, int64_t width, bool is_out_streamed) {
  for_each_vector(width, [&](int64_t i, auto extent) {
    put(out + i, add_gated(x + i, y + i, gate + i, extent), extent, is_out_streamed);
  });
}

template <class T, class Y>
void backward_row(const ResidualGradients<T, Y> &result, const T *grad_out, const Y *y, const float *gate,
                  int64_t width) {
  for_each_vector(
      width, [&](int64_t i, auto extent) { pass_gradient(result, i, load(grad_out + i, extent), y, gate, extent); });
}

void forward(const GateResidualForward &call, int64_t begin, int64_t end) {
  with_dtype(call.x.dtype, [&](auto x_type) {
    with_dtype(call.y.dtype, [&](auto y_type) {
      using T = decltype(x_type);
      using Y = decltype(y_type);
      for (int64_t token = begin; token < end; ++token) {
        const int64_t sample = token / call.length;
        const int64_t row = sample * call.index.num_rows + lookup(call.index, sample, token % call.length);
        forward_row(row_at<T>(call.out, token), row_at<const T>(call.x, token), row_at<const Y>(call.y, token),
                    row_at<const float>(call.gate, row), call.x.width, is_streamed<T>(call.out));
      }
    });
  });
  finish_streaming();
}

void backward(const GateResidualBackward &call, int64_t sample, int64_t begin, int64_t end, float *grad_gate) {
  with_dtype(call.grad_out.dtype, [&](auto x_type) {
    with_dtype(call.y.dtype, [&](auto y_type) {
      using T = decltype(x_type);
      using Y = decltype(y_type);
      const int64_t width = call.y.width;
      for (int64_t token = begin; token < end; ++token) {
        const int64_t at = sample * call.length + token;
        const int64_t row = lookup(call.index, sample, token);
        const ResidualGradients<T, Y> result = {call.grad_x.data ? row_at<T>(call.grad_x, at) : nullptr,
                                                call.grad_y.data ? row_at<Y>(call.grad_y, at) : nullptr,
                                                grad_gate ? grad_gate + row * width : nullptr};
        backward_row(result, row_at<const T>(call.grad_out, at), row_at<const Y>(call.y, at),
                     row_at<const float>(call.gate, sample * call.index.num_rows + row), width);
      }
    });
  });
}

}  // namespace

extern const GateResidualKernels gate_residual_kernels = {forward, backward};

}  // namespace WK_ISA
}  // namespace wk
