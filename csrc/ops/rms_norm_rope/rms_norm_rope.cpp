// SPDX-License-Identifier: Apache-2.0
#include "common/memory.h"
#include "common/parallel.h"
#include "common/reduce.h"
#include "common/token_mean.h"
#include "ops/rms_norm_rope/rms_norm_rope_cpu.h"

namespace wk {
namespace {

constexpr const char *kOp = "rms_norm_rope";
constexpr const char *kTableNames[3] = {"freqs_t", "freqs_y", "freqs_x"};

struct Arguments {
  const wk_tensor *x, *weight;
  const wk_tensor *tables[3];
  int64_t num_heads;
  const int64_t *grid;
  double eps;
};

// Memory that the kernels' views point into.
struct Parameters {
  FloatVector weight;
  FloatBuffer axes[3];
};

wk_status check_tables(const Arguments &arguments, int64_t head_width, int64_t length) {
  int64_t num_pairs = 0, num_positions = 1;
  for (int k = 0; k < 3; ++k) {
    const wk_tensor *table = arguments.tables[k];
    WK_TRY(check_floating(kOp, kTableNames[k], table));
    WK_REQUIRE(table->dtype == WK_FLOAT32, "[%s] %s must be float32, got %s", kOp, kTableNames[k],
               dtype_name(table->dtype));
    WK_REQUIRE(table->ndim == 3 && table->shape[2] == 2, "[%s] %s must have shape [len, pairs, 2]", kOp,
               kTableNames[k]);
    WK_REQUIRE(arguments.grid[k] >= 0 && arguments.grid[k] <= table->shape[0],
               "[%s] grid must fit the tables, got %lld positions for %lld in %s", kOp,
               static_cast<long long>(arguments.grid[k]), static_cast<long long>(table->shape[0]), kTableNames[k]);
    num_pairs += table->shape[1];
    num_positions *= arguments.grid[k];
  }
  WK_REQUIRE(2 * num_pairs == head_width, "[%s] the tables must hold %lld pairs for head width %lld, got %lld", kOp,
             static_cast<long long>(head_width / 2), static_cast<long long>(head_width),
             static_cast<long long>(num_pairs));
  WK_REQUIRE(num_positions <= length, "[%s] grid must hold at most %lld tokens, got %lld", kOp,
             static_cast<long long>(length), static_cast<long long>(num_positions));
  return WK_OK;
}

wk_status check_inputs(const Arguments &arguments) {
  const wk_tensor *x = arguments.x;
  WK_TRY(check_floating(kOp, "x", x));
  WK_TRY(check_floating(kOp, "weight", arguments.weight));
  WK_REQUIRE(x->ndim == 3, "[%s] x must have 3 dimensions, got %d", kOp, x->ndim);
  WK_REQUIRE(arguments.grid, "[%s] grid must be given, got NULL", kOp);
  WK_REQUIRE(arguments.num_heads > 0 && x->shape[2] % arguments.num_heads == 0,
             "[%s] num_heads must divide the width %lld, got %lld", kOp, static_cast<long long>(x->shape[2]),
             static_cast<long long>(arguments.num_heads));
  WK_TRY(check_tables(arguments, x->shape[2] / arguments.num_heads, x->shape[1]));
  return require_all_cpu(kOp, {x, arguments.weight, arguments.tables[0], arguments.tables[1], arguments.tables[2]});
}

wk_status check(const Arguments &arguments, const wk_tensor *out, const char *out_name) {
  WK_TRY(check_inputs(arguments));
  WK_TRY(check_floating(kOp, out_name, out));
  const wk_tensor &x = *arguments.x;
  const int64_t shape[4] = {x.shape[0], x.shape[1], arguments.num_heads, x.shape[2] / arguments.num_heads};
  WK_TRY(check_shape(kOp, out_name, *out, 4, shape));
  WK_TRY(check_same_dtype(kOp, out_name, *out, "x", x));
  return require_all_cpu(kOp, {out});
}

wk_status read_axis(const wk_tensor &table, int64_t extent, FloatBuffer *memory, RopeAxis *axis) {
  const int64_t pairs = table.shape[1];
  WK_TRY(memory->allocate(kOp, extent * pairs * 4));
  float *cosines = memory->data(), *sines = cosines + extent * pairs * 2;
  *axis = {cosines, sines, 2 * pairs, extent};
  const float *values = static_cast<const float *>(table.data);
  for (int64_t position = 0; position < extent; ++position) {
    for (int64_t pair = 0; pair < pairs; ++pair) {
      const float *value = values + position * table.stride[0] + pair * table.stride[1];
      const float cosine = value[0], sine = value[table.stride[2]];
      *cosines++ = cosine;
      *cosines++ = cosine;
      *sines++ = -sine;
      *sines++ = sine;
    }
  }
  return WK_OK;
}

wk_status read_inputs(const Arguments &arguments, Parameters *parameters, RmsNormRopeInputs *in) {
  WK_TRY(fold_rows(kOp, "x", *arguments.x, &in->x));
  WK_TRY(parameters->weight.read(kOp, "weight", arguments.weight, in->x.width));
  for (int k = 0; k < 3; ++k) {
    WK_TRY(read_axis(*arguments.tables[k], arguments.grid[k], &parameters->axes[k], &in->axes[k]));
  }
  in->weight = parameters->weight.data();
  in->num_heads = arguments.num_heads;
  in->length = arguments.x->shape[1];
  in->eps = static_cast<float>(arguments.eps);
  return WK_OK;
}

}  // namespace
}  // namespace wk

using namespace wk;

extern "C" wk_status wk_rms_norm_rope(const wk_tensor *out, const wk_tensor *x, const wk_tensor *weight,
                                      const wk_tensor *freqs_t, const wk_tensor *freqs_y, const wk_tensor *freqs_x,
                                      int64_t num_heads, const int64_t grid[3], double eps, void * /*stream*/) {
  const Arguments arguments = {x, weight, {freqs_t, freqs_y, freqs_x}, num_heads, grid, eps};
  WK_TRY(check(arguments, out, "out"));
  const RmsNormRopeKernels *kernels;
  WK_TRY(select_rms_norm_rope_kernels(&kernels));
  Parameters parameters;
  RmsNormRopeForward call;
  WK_TRY(read_inputs(arguments, &parameters, &call.in));
  WK_TRY(fold_heads(kOp, "out", *out, &call.out));

  const int64_t turns_floats = 2 * out->shape[3];
  FloatBuffer turns;
  WK_TRY(turns.allocate(kOp, num_threads() * turns_floats));
  prefer_huge_pages(out);
  parallel_for_threads(call.out.count, rows_per_piece(call.out.width), [&](int64_t begin, int64_t end, int32_t thread) {
    kernels->forward(call, begin, end, turns.data() + thread * turns_floats);
  });
  return WK_OK;
}

extern "C" wk_status wk_rms_norm_rope_8bit(const wk_tensor *out, const wk_tensor *out_scale, const wk_tensor *mean,
                                           const wk_tensor *x, const wk_tensor *weight, const wk_tensor *freqs_t,
                                           const wk_tensor *freqs_y, const wk_tensor *freqs_x, int64_t num_heads,
                                           const int64_t grid[3], double eps, int64_t tokens_per_scale,
                                           int32_t is_smooth, void * /*stream*/) {
  const Arguments arguments = {x, weight, {freqs_t, freqs_y, freqs_x}, num_heads, grid, eps};
  WK_TRY(check_inputs(arguments));
  WK_REQUIRE(tokens_per_scale > 0, "[%s] tokens_per_scale must be at least 1, got %lld", kOp,
             static_cast<long long>(tokens_per_scale));
  const int64_t length = x->shape[1], head_width = x->shape[2] / num_heads;
  const int64_t num_blocks = length / tokens_per_scale + (length % tokens_per_scale > 0);
  const int64_t codes_shape[4] = {x->shape[0], num_heads, length, head_width};
  const int64_t scales_shape[3] = {x->shape[0], num_heads, num_blocks};
  const int64_t mean_shape[3] = {x->shape[0], num_heads, head_width};
  WK_TRY(check_dense(kOp, "out", out, WK_INT8, 4, codes_shape));
  WK_TRY(check_dense(kOp, "out_scale", out_scale, WK_FLOAT32, 3, scales_shape));
  WK_TRY(check_dense(kOp, "mean", mean, WK_FLOAT32, 3, mean_shape));
  WK_TRY(require_all_cpu(kOp, {out, out_scale, mean}));

  const RmsNormRope8bitKernels *kernels;
  WK_TRY(select_rms_norm_rope_8bit_kernels(&kernels));
  Parameters parameters;
  RmsNormRope8bit call;
  WK_TRY(read_inputs(arguments, &parameters, &call.in));
  FloatBuffer row_scales;
  if (is_smooth) WK_TRY(row_scales.allocate(kOp, x->shape[0] * length));
  call.row_scales = row_scales.data();
  if (is_smooth) {
    WK_TRY(write_token_mean(
        kOp, *mean, length, 2 * kTokensOfSum * head_width,
        [&](int64_t begin, int64_t end, float *sums, float *turns) { kernels->sum(call, begin, end, sums, turns); }));
  } else {
    clear_token_mean(*mean);
  }
  call.out = static_cast<int8_t *>(out->data);
  call.out_scale = static_cast<float *>(out_scale->data);
  call.mean = static_cast<const float *>(mean->data);
  call.tokens_per_scale = tokens_per_scale;
  call.num_blocks = num_blocks;

  // Codes of a head lie together only over tokens: fewer at a time would scatter them line by line.
  const int64_t least_tokens = 16;
  const int64_t wanted = (least_tokens + tokens_per_scale - 1) / tokens_per_scale * tokens_per_scale;
  call.tokens_per_piece = wanted < length ? wanted : (length > 0 ? length : 1);
  const int64_t num_pieces = (length + call.tokens_per_piece - 1) / call.tokens_per_piece;
  const int64_t piece_floats = call.tokens_per_piece * 3 * head_width;
  FloatBuffer memory;
  WK_TRY(memory.allocate(kOp, num_threads() * piece_floats));
  prefer_huge_pages(out);
  const int64_t grain = rows_per_piece(call.tokens_per_piece * x->shape[2]);
  parallel_for_threads(x->shape[0] * num_pieces, grain, [&](int64_t begin, int64_t end, int32_t thread) {
    kernels->encode(call, begin, end, memory.data() + thread * piece_floats);
  });
  return WK_OK;
}

extern "C" wk_status wk_rms_norm_rope_backward(const wk_tensor *grad_x, const wk_tensor *grad_weight,
                                               const wk_tensor *grad_out, const wk_tensor *x, const wk_tensor *weight,
                                               const wk_tensor *freqs_t, const wk_tensor *freqs_y,
                                               const wk_tensor *freqs_x, int64_t num_heads, const int64_t grid[3],
                                               double eps, void * /*stream*/) {
  const Arguments arguments = {x, weight, {freqs_t, freqs_y, freqs_x}, num_heads, grid, eps};
  WK_TRY(check(arguments, grad_out, "grad_out"));
  if (grad_x) {
    WK_TRY(check_floating(kOp, "grad_x", grad_x));
    WK_TRY(check_same_shape(kOp, "grad_x", *grad_x, "x", *x));
    WK_TRY(check_same_dtype(kOp, "grad_x", *grad_x, "x", *x));
  }
  if (grad_weight) {
    WK_TRY(check_floating(kOp, "grad_weight", grad_weight));
    WK_TRY(check_same_shape(kOp, "grad_weight", *grad_weight, "weight", *weight));
  }
  WK_TRY(require_all_cpu(kOp, {grad_x, grad_weight}));

  const RmsNormRopeKernels *kernels;
  WK_TRY(select_rms_norm_rope_kernels(&kernels));
  Parameters parameters;
  RmsNormRopeBackward call;
  WK_TRY(read_inputs(arguments, &parameters, &call.in));
  WK_TRY(fold_heads(kOp, "grad_out", *grad_out, &call.grad_out));
  WK_TRY(fold_optional_rows(kOp, "grad_x", grad_x, &call.grad_x));

  // One part's memory: the sums of grad_weight, the turned gradient row, the token's turns.
  const int64_t width = call.in.x.width;
  const Split split = split_rows(call.in.x.count, width);
  const int64_t part_floats = 2 * width + 2 * grad_out->shape[3];
  FloatBuffer parts;
  WK_TRY(parts.allocate_filled(kOp, split.num_parts * part_floats, 0.0f));
  prefer_huge_pages(grad_x);
  parallel_for(split.num_parts, 1, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      float *sums = parts.data() + i * part_floats;
      float *row = sums + width, *turns = row + width;
      kernels->backward(call, split.begin(i), split.end(i), turns, row, grad_weight ? sums : nullptr);
    }
  });
  if (grad_weight) sum_vectors(parts.data(), split.num_parts, part_floats, *grad_weight);
  return WK_OK;
}
