// SPDX-License-Identifier: Apache-2.0
// A row comes from memory for its largest size, and again from the first cache for its codes.
#include "common/cpu/codes.h"
#include "ops/quantize_rows/quantize_rows_cpu.h"

namespace wk {
namespace WK_ISA {
namespace {

void forward(const QuantizeRows &call, int64_t begin, int64_t end) {
  with_dtype(call.x.dtype, [&](auto x_type) {
    with_codes(call.out.dtype, [&](auto code) {
      for (int64_t row = begin; row < end; ++row) {
        using T = decltype(x_type);
        const T *x = row_at<const T>(call.x, row);
        const Ahead<1, T> next = {row_at<const T>(call.x, row + 1), call.x.width};
        const float scale = scale_for(largest_size(x, call.x.width), limit_of(code));
        call.out_scale[row] = scale;
        encode_row(row_at<decltype(code)>(call.out, row), x, scale, call.x.width, is_streamed<decltype(code)>(call.out),
                   next);
      }
    });
  });
  finish_streaming();
}

}  // namespace

extern const QuantizeRowsKernels quantize_rows_kernels = {forward};

}  // namespace WK_ISA
}  // namespace wk
