// SPDX-License-Identifier: Apache-2.0
#include <cstring>

#include "common/memory.h"
#include "common/parallel.h"
#include "common/reduce.h"
#include "ops/gate_residual/gate_residual_cpu.h"

namespace wk {
namespace {

constexpr const char *kOp = "gate_residual";

wk_status check(const wk_tensor *residual, const char *name, const wk_tensor *y, const wk_tensor *gate,
                const wk_tensor *index) {
  WK_TRY(check_floating(kOp, name, residual));
  WK_TRY(check_floating(kOp, "y", y));
  WK_TRY(check_floating(kOp, "gate", gate));
  WK_REQUIRE(y->ndim == 3, "[%s] y must have 3 dimensions, got %d", kOp, y->ndim);
  WK_REQUIRE(gate->ndim == 3, "[%s] gate must have 3 dimensions, got %d", kOp, gate->ndim);
  WK_TRY(check_same_shape(kOp, name, *residual, "y", *y));
  return require_all_cpu(kOp, {residual, y, gate, index});
}

}  // namespace
}  // namespace wk

using namespace wk;

extern "C" wk_status wk_gate_residual(const wk_tensor *out, const wk_tensor *x, const wk_tensor *y,
                                      const wk_tensor *gate, const wk_tensor *index, void * /*stream*/) {
  WK_TRY(check(x, "x", y, gate, index));
  WK_TRY(check(out, "out", y, gate, index));
  WK_TRY(check_same_dtype(kOp, "out", *out, "x", *x));
  const GateResidualKernels *kernels;
  WK_TRY(select_gate_residual_kernels(&kernels));
  const int64_t num_rows = gate->shape[1];
  GateResidualForward call;
  FloatTable gate_rows;
  WK_TRY(fold_rows(kOp, "out", *out, &call.out));
  WK_TRY(fold_rows(kOp, "x", *x, &call.x));
  WK_TRY(fold_rows(kOp, "y", *y, &call.y));
  WK_TRY(gate_rows.read(kOp, "gate", gate, y->shape[0], num_rows, y->shape[2]));
  WK_TRY(read_row_index(kOp, index, y->shape[0], y->shape[1], num_rows, &call.index));
  call.gate = gate_rows.rows();
  call.length = y->shape[1];
  prefer_huge_pages(out);
  parallel_for(call.x.count, rows_per_piece(call.x.width),
               [&](int64_t begin, int64_t end) { kernels->forward(call, begin, end); });
  return WK_OK;
}

extern "C" wk_status wk_gate_residual_backward(const wk_tensor *grad_x, const wk_tensor *grad_y,
                                               const wk_tensor *grad_gate, const wk_tensor *grad_out,
                                               const wk_tensor *y, const wk_tensor *gate, const wk_tensor *index,
                                               void * /*stream*/) {
  WK_TRY(check(grad_out, "grad_out", y, gate, index));
  if (grad_x) {
    WK_TRY(check(grad_x, "grad_x", y, gate, index));
    WK_TRY(check_same_dtype(kOp, "grad_x", *grad_x, "grad_out", *grad_out));
  }
  if (grad_y) {
    WK_TRY(check(grad_y, "grad_y", y, gate, index));
    WK_TRY(check_same_dtype(kOp, "grad_y", *grad_y, "y", *y));
  }
  if (grad_gate) {
    WK_TRY(check_floating(kOp, "grad_gate", grad_gate));
    WK_TRY(check_same_shape(kOp, "grad_gate", *grad_gate, "gate", *gate));
    WK_TRY(require_all_cpu(kOp, {grad_gate}));
  }

  const GateResidualKernels *kernels;
  WK_TRY(select_gate_residual_kernels(&kernels));
  const int64_t batch = y->shape[0], num_rows = gate->shape[1], width = y->shape[2];
  GateResidualBackward call;
  FloatTable gate_rows;
  WK_TRY(fold_optional_rows(kOp, "grad_x", grad_x, &call.grad_x));
  WK_TRY(fold_optional_rows(kOp, "grad_y", grad_y, &call.grad_y));
  WK_TRY(fold_rows(kOp, "grad_out", *grad_out, &call.grad_out));
  WK_TRY(fold_rows(kOp, "y", *y, &call.y));
  WK_TRY(gate_rows.read(kOp, "gate", gate, batch, num_rows, width));
  WK_TRY(read_row_index(kOp, index, batch, y->shape[1], num_rows, &call.index));
  call.gate = gate_rows.rows();
  call.length = y->shape[1];

  const Split split = split_tokens(call.length, width, num_rows);
  const int64_t part_floats = grad_gate ? num_rows * width : 0;
  FloatBuffer parts;
  WK_TRY(parts.allocate(kOp, batch * split.num_parts * part_floats));
  prefer_huge_pages(grad_x);
  prefer_huge_pages(grad_y);
  parallel_for(batch * split.num_parts, 1, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      float *part = grad_gate ? parts.data() + i * part_floats : nullptr;
      if (part) std::memset(part, 0, static_cast<size_t>(part_floats) * sizeof(float));
      const int64_t tokens = i % split.num_parts;
      kernels->backward(call, i / split.num_parts, split.begin(tokens), split.end(tokens), part);
    }
  });
  if (grad_gate) sum_tables(parts.data(), split.num_parts, part_floats, *grad_gate);
  return WK_OK;
}
