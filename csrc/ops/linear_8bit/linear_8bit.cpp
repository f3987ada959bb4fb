// SPDX-License-Identifier: Apache-2.0
#include "common/memory.h"
#include "common/parallel.h"
#include "ops/linear_8bit/linear_8bit_cpu.h"

namespace wk {
namespace {

constexpr const char *kOp = "linear_8bit";
constexpr int64_t kMaxWidth = 65536;  // of int8: 255 * 128 * 65536 fits in 31 bits

struct Arguments {
  const wk_tensor *out, *out_scale, *x, *x_scale, *weight, *weight_scale, *bias, *residual, *gate, *index;
  bool apply_gelu;
};

// fp32 copies and column sums that the kernel's views point into.
struct Parameters {
  FloatVector weight_scale, bias;
  FloatTable gate;
  FloatBuffer offsets;
};

int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

wk_status check_int8(const char *name, const wk_tensor *tensor) {
  WK_TRY(check_codes(kOp, name, tensor));
  WK_REQUIRE(tensor->dtype == WK_INT8, "[%s] %s must be int8, got %s", kOp, name, dtype_name(tensor->dtype));
  return WK_OK;
}

// weight [ceil(N / 16), ceil(K / 4), 16, 4], contiguous.
wk_status check_packed(const wk_tensor *weight, int64_t num_columns, int64_t width) {
  const int64_t shape[4] = {ceil_div(num_columns, kGroupColumns), ceil_div(width, kQuad), kGroupColumns, kQuad};
  return check_dense(kOp, "weight", weight, WK_INT8, 4, shape);
}

// out [..., N], floating or codes with their scales, for x [..., K].
wk_status check_out(const Arguments &a, int64_t num_columns) {
  if (a.out_scale) {
    WK_TRY(check_codes(kOp, "out", a.out));
    WK_TRY(check_row_scales(kOp, "out_scale", a.out_scale, *a.x));
  } else {
    WK_TRY(check_floating(kOp, "out", a.out));
  }
  wk_tensor wanted = *a.x;
  wanted.shape[wanted.ndim - 1] = num_columns;
  return check_shape(kOp, "out", *a.out, wanted.ndim, wanted.shape);
}

wk_status check_residual(const Arguments &a) {
  WK_REQUIRE(a.residual || !a.gate, "[%s] gate must come with a residual, got it alone", kOp);
  WK_REQUIRE(a.gate || !a.index, "[%s] index must come with a gate, got it alone", kOp);
  if (!a.residual) return WK_OK;
  WK_REQUIRE(!a.apply_gelu, "[%s] gelu must not come with a residual, got both", kOp);
  WK_TRY(check_floating(kOp, "residual", a.residual));
  WK_TRY(check_same_shape(kOp, "residual", *a.residual, "out", *a.out));
  WK_TRY(check_same_dtype(kOp, "residual", *a.residual, "out", *a.out));
  if (!a.gate) return WK_OK;
  WK_TRY(check_floating(kOp, "gate", a.gate));
  WK_REQUIRE(a.gate->ndim == 3, "[%s] gate must have 3 dimensions, got %d", kOp, a.gate->ndim);
  WK_REQUIRE(a.x->ndim == 3, "[%s] x must have 3 dimensions where there is a gate, got %d", kOp, a.x->ndim);
  return WK_OK;
}

wk_status check(const Arguments &a) {
  WK_TRY(check_int8("x", a.x));
  WK_REQUIRE(a.weight_scale && a.weight_scale->ndim == 1, "[%s] weight_scale must be given, with 1 dimension", kOp);
  const int64_t width = a.x->shape[a.x->ndim - 1], num_columns = a.weight_scale->shape[0];
  WK_REQUIRE(width <= kMaxWidth, "[%s] x must have a width of at most %lld, got %lld", kOp,
             static_cast<long long>(kMaxWidth), static_cast<long long>(width));
  WK_TRY(check_packed(a.weight, num_columns, width));
  WK_TRY(check_row_scales(kOp, "x_scale", a.x_scale, *a.x));
  WK_TRY(check_out(a, num_columns));
  WK_TRY(check_residual(a));
  return require_all_cpu(
      kOp, {a.out, a.out_scale, a.x, a.x_scale, a.weight, a.weight_scale, a.bias, a.residual, a.gate, a.index});
}

wk_status read(const Arguments &a, Parameters *parameters, Linear8bit *call) {
  const int64_t num_columns = a.weight_scale->shape[0];
  WK_TRY(fold_rows(kOp, "x", *a.x, &call->x));
  call->weight = static_cast<const int8_t *>(a.weight->data);
  call->num_quads = a.weight->shape[1];
  WK_TRY(fold_rows(kOp, "out", *a.out, &call->out));
  WK_TRY(fold_optional_rows(kOp, "residual", a.residual, &call->residual));
  WK_TRY(parameters->weight_scale.read(kOp, "weight_scale", a.weight_scale, num_columns));
  WK_TRY(parameters->bias.read(kOp, "bias", a.bias, num_columns));
  if (a.gate) {
    const int64_t num_rows = a.gate->shape[1];
    call->length = a.x->shape[1];
    WK_TRY(parameters->gate.read(kOp, "gate", a.gate, a.x->shape[0], num_rows, num_columns));
    WK_TRY(read_row_index(kOp, a.index, a.x->shape[0], call->length, num_rows, &call->index));
    call->gate = parameters->gate.rows();
  }
  call->x_scale = static_cast<const float *>(a.x_scale->data);
  call->weight_scale = parameters->weight_scale.data();
  call->bias = parameters->bias.data();
  call->out_scale = a.out_scale ? static_cast<float *>(a.out_scale->data) : nullptr;
  call->apply_gelu = a.apply_gelu;
  return WK_OK;
}

// Rows per piece of work: every thread gets the same number of pieces, of nearly the same size.
int64_t block_rows(int64_t num_rows, int64_t row_bytes) {
  const int64_t share = ceil_div(num_rows, num_threads());
  const int64_t pieces = ceil_div(share, max_block_rows(row_bytes));
  const int64_t rows = pieces > 0 ? ceil_div(share, pieces) : 1;
  return rows < kTileRows ? rows : ceil_div(rows, kTileRows) * kTileRows;
}

}  // namespace
}  // namespace wk

using namespace wk;

extern "C" wk_status wk_linear_8bit(const wk_tensor *out, const wk_tensor *out_scale, const wk_tensor *x,
                                    const wk_tensor *x_scale, const wk_tensor *weight, const wk_tensor *weight_scale,
                                    const wk_tensor *bias, const wk_tensor *residual, const wk_tensor *gate,
                                    const wk_tensor *index, int32_t apply_gelu, void * /*stream*/) {
  const Arguments arguments = {out,  out_scale, x,    x_scale, weight,         weight_scale,
                               bias, residual,  gate, index,   apply_gelu != 0};
  WK_TRY(check(arguments));
  const Linear8bitKernels *kernels;
  WK_TRY(select_linear_8bit_kernels(&kernels));
  Parameters parameters;
  Linear8bit call;
  WK_TRY(read(arguments, &parameters, &call));

  const int64_t num_rows = call.x.count, num_columns = call.out.width, row_bytes = call.num_quads * kQuad;
  const int64_t rows = block_rows(num_rows, row_bytes), num_groups = weight->shape[0];
  const int64_t num_sums = rows * kBlockColumns, num_values = out_scale ? rows * num_columns : 0;
  const int64_t own_floats = num_sums + num_values + rows * call.num_quads;
  FloatBuffer memory;
  WK_TRY(parameters.offsets.allocate(kOp, num_groups * kGroupColumns));
  WK_TRY(memory.allocate(kOp, num_threads() * own_floats));
  auto *offsets = reinterpret_cast<int32_t *>(parameters.offsets.data());
  call.offsets = offsets;
  parallel_for(num_groups, rows_per_piece(row_bytes * kGroupColumns),
               [&](int64_t begin, int64_t end) { kernels->offsets(call, begin, end, offsets); });
  prefer_huge_pages(out);
  parallel_for_threads(ceil_div(num_rows, rows), 1, [&](int64_t begin, int64_t end, int32_t thread) {
    float *own = memory.data() + thread * own_floats;
    const Linear8bitScratch scratch = {reinterpret_cast<int32_t *>(own), own + num_sums, own + num_sums + num_values};
    for (int64_t block = begin; block < end; ++block) {
      const int64_t last = (block + 1) * rows < num_rows ? (block + 1) * rows : num_rows;
      kernels->forward(call, block * rows, last, scratch);
    }
  });
  return WK_OK;
}

extern "C" wk_status wk_pack_linear_8bit(const wk_tensor *out, const wk_tensor *weight) {
  WK_TRY(check_int8("weight", weight));
  WK_TRY(check_int8("out", out));
  WK_REQUIRE(weight->ndim == 2, "[%s] weight must have 2 dimensions, got %d", kOp, weight->ndim);
  const int64_t num_columns = weight->shape[0], width = weight->shape[1];
  WK_TRY(check_packed(out, num_columns, width));
  WK_TRY(require_all_cpu(kOp, {out, weight}));
  Rows rows;
  WK_TRY(fold_rows(kOp, "weight", *weight, &rows));
  const int64_t num_quads = out->shape[1];
  auto *packed = static_cast<int8_t *>(out->data);
  parallel_for(out->shape[0] * num_quads, 4096, [&](int64_t begin, int64_t end) {
    for (int64_t at = begin; at < end; ++at) {
      for (int64_t i = 0; i < kQuadBytes; ++i) {
        const int64_t column = at / num_quads * kGroupColumns + i / kQuad, k = at % num_quads * kQuad + i % kQuad;
        const bool is_inside = column < num_columns && k < width;
        packed[at * kQuadBytes + i] = is_inside ? rows.data[column * rows.inner_stride + k] : 0;
      }
    }
  });
  return WK_OK;
}
