// SPDX-License-Identifier: Apache-2.0
#include "common/memory.h"
#include "common/parallel.h"
#include "ops/quantize_rows/quantize_rows_cpu.h"

using namespace wk;

extern "C" wk_status wk_quantize_rows(const wk_tensor *out, const wk_tensor *out_scale, const wk_tensor *x,
                                      void * /*stream*/) {
  constexpr const char *kOp = "quantize_rows";
  WK_TRY(check_floating(kOp, "x", x));
  WK_TRY(check_codes(kOp, "out", out));
  WK_TRY(check_same_shape(kOp, "out", *out, "x", *x));
  WK_TRY(check_row_scales(kOp, "out_scale", out_scale, *x));
  WK_TRY(require_all_cpu(kOp, {out, out_scale, x}));
  const QuantizeRowsKernels *kernels;
  WK_TRY(select_quantize_rows_kernels(&kernels));
  QuantizeRows call;
  WK_TRY(fold_rows(kOp, "out", *out, &call.out));
  WK_TRY(fold_rows(kOp, "x", *x, &call.x));
  call.out_scale = static_cast<float *>(out_scale->data);
  prefer_huge_pages(out);
  parallel_for(call.x.count, rows_per_piece(call.x.width),
               [&](int64_t begin, int64_t end) { kernels->forward(call, begin, end); });
  return WK_OK;
}
