// SPDX-License-Identifier: Apache-2.0
#include "common/cpu/layer_norm.h"
#include "ops/layer_norm_modulate/layer_norm_modulate_cpu.h"

namespace wk {
namespace WK_ISA {
namespace {

void forward(const LayerNormModulateForward &call, int64_t begin, int64_t end) {
  const LayerNormInputs &in = call.in;
  with_dtype(in.x.dtype, [&](auto x_type) {
    with_dtype(call.out.dtype, [&](auto out_type) {
      for (int64_t token = begin; token < end; ++token) {
        using T = decltype(x_type);
        using Out = decltype(out_type);
        const T *x = row_at<const T>(in.x, token);
        const Ahead<2, T> next = {row_at<const T>(in.x, token + 1), in.x.width};
        normalise_row(row_at<Out>(call.out, token), x, statistics(x, in.x.width, in.eps, next), table_row(in, token),
                      in, is_streamed<Out>(call.out), next);
      }
    });
  });
  finish_streaming();
}

void forward_8bit(const LayerNormModulate8bit &call, int64_t begin, int64_t end, float *row) {
  const LayerNormInputs &in = call.in;
  with_dtype(in.x.dtype, [&](auto x_type) {
    with_codes(call.out.dtype, [&](auto code) {
      for (int64_t token = begin; token < end; ++token) {
        using T = decltype(x_type);
        const T *x = row_at<const T>(in.x, token);
        const Ahead<3, T, 2> next = {row_at<const T>(in.x, token + 2), in.x.width};
        call.out_scale[token] = normalise_and_encode_row(row_at<decltype(code)>(call.out, token), row, x,
                                                         statistics(x, in.x.width, in.eps, next), table_row(in, token),
                                                         in, is_streamed<decltype(code)>(call.out), next);
      }
    });
  });
  finish_streaming();
}

template <class T, class Out>
void backward_tokens(const LayerNormModulateBackward &call, int64_t sample, int64_t begin, int64_t end,
                     const LayerNormSums &sums, float *grad_normal) {
  const LayerNormInputs &in = call.in;
  for (int64_t token = begin; token < end; ++token) {
    const int64_t at = sample * in.length + token;
    const T *x = row_at<const T>(in.x, at);
    const Statistics stats = statistics(x, in.x.width, in.eps);
    add_token_gradients(grad_normal, sums, row_at<const Out>(call.grad_out, at), x, stats, sample, token, in);
    if (!call.grad_x.data) continue;
    T *grad_x = row_at<T>(call.grad_x, at);
    each_input_gradient(grad_normal, x, stats, in.x.width,
                        [&](int64_t i, Floats value, auto extent) { store(grad_x + i, value, extent); });
  }
}

void backward(const LayerNormModulateBackward &call, int64_t sample, int64_t begin, int64_t end,
              const LayerNormSums &sums, float *row) {
  with_dtype(call.in.x.dtype, [&](auto x_type) {
    with_dtype(call.grad_out.dtype, [&](auto out_type) {
      backward_tokens<decltype(x_type), decltype(out_type)>(call, sample, begin, end, sums, row);
    });
  });
}

}  // namespace

extern const LayerNormModulateKernels layer_norm_modulate_kernels = {forward, forward_8bit, backward};

}  // namespace WK_ISA
}  // namespace wk
