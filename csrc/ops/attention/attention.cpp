// SPDX-License-Identifier: Apache-2.0
#include "common/memory.h"
#include "common/parallel.h"
#include "ops/attention/attention_cpu.h"

namespace wk {
namespace {

constexpr const char *kOp = "attention";
constexpr int64_t kWidthStep = 16;
constexpr int64_t kPackedFloats = 16 << 20;  // of heads that are packed together: 64 MiB

int64_t ceil_div(int64_t count, int64_t step) { return (count + step - 1) / step; }

wk_status check_heads(const char *name, const wk_tensor *tensor, const int64_t *shape, int32_t dtype) {
  WK_TRY(check_floating(kOp, name, tensor));
  WK_TRY(check_shape(kOp, name, *tensor, 4, shape));
  WK_REQUIRE(tensor->dtype == dtype, "[%s] %s must have the dtype of q %s, got %s", kOp, name, dtype_name(dtype),
             dtype_name(tensor->dtype));
  WK_REQUIRE(tensor->stride[3] == 1 || element_count(*tensor) == 0, "[%s] the last stride of %s must be 1, got %lld",
             kOp, name, static_cast<long long>(tensor->stride[3]));
  return WK_OK;
}

Heads read_heads(const wk_tensor &tensor) {
  return {static_cast<char *>(tensor.data), tensor.stride[0], tensor.stride[1], tensor.stride[2], tensor.dtype};
}

wk_status check(const wk_tensor *out, const wk_tensor *lse, const wk_tensor *q, const wk_tensor *k, const wk_tensor *v,
                const wk_tensor *k_lengths) {
  WK_TRY(check_floating(kOp, "q", q));
  WK_TRY(check_floating(kOp, "k", k));
  WK_REQUIRE(q->ndim == 4 && k->ndim == 4, "[%s] q and k must have 4 dimensions, got %d and %d", kOp, q->ndim, k->ndim);
  const int64_t batch = q->shape[0], length = q->shape[1], heads = q->shape[2], width = q->shape[3];
  WK_REQUIRE(k->shape[1] > 0, "[%s] k must have at least one key, got none", kOp);
  WK_REQUIRE(width > 0 && width % kWidthStep == 0, "[%s] H must be a multiple of %lld, got %lld", kOp,
             static_cast<long long>(kWidthStep), static_cast<long long>(width));
  const int64_t k_shape[4] = {batch, k->shape[1], heads, width}, lse_shape[3] = {batch, heads, length};
  WK_TRY(check_heads("q", q, q->shape, q->dtype));
  WK_TRY(check_heads("k", k, k_shape, q->dtype));
  WK_TRY(check_heads("v", v, k_shape, q->dtype));
  WK_TRY(check_heads("out", out, q->shape, q->dtype));
  WK_TRY(check_dense(kOp, "lse", lse, WK_FLOAT32, 3, lse_shape));
  return require_all_cpu(kOp, {q, k, v, k_lengths, out, lse});
}

wk_status read_lengths(const wk_tensor *k_lengths, int64_t batch, AttentionForward *call) {
  call->k_lengths = nullptr;
  if (!k_lengths) return WK_OK;
  WK_REQUIRE(k_lengths->dtype == WK_INT32 || k_lengths->dtype == WK_INT64,
             "[%s] k_lengths must be int32 or int64, got %s", kOp, dtype_name(k_lengths->dtype));
  WK_TRY(check_dense(kOp, "k_lengths", k_lengths, k_lengths->dtype, 1, &batch));
  call->k_lengths = k_lengths->data;
  call->k_lengths_dtype = k_lengths->dtype;
  for (int64_t sample = 0; sample < batch; ++sample) {
    const int64_t count = visible_keys(*call, sample);
    WK_REQUIRE(count >= 0 && count <= call->num_keys, "[%s] k_lengths must lie in [0, %lld], got %lld", kOp,
               static_cast<long long>(call->num_keys), static_cast<long long>(count));
  }
  return WK_OK;
}

AttentionScratch scratch_at(float *memory, int64_t head_width) {
  float *rows = memory + kBlockRows * head_width, *scores = rows + kBlockRows * head_width;
  return {memory, rows, scores, scores + kMaxTileRows * kTileKeys};
}

// Heads are packed and used in bunches, so that memory stays linear in the length and small.
wk_status run(const AttentionKernels &kernels, const AttentionForward &call, int64_t num_heads) {
  const int64_t num_tiles = ceil_div(call.num_keys, kTileKeys);
  const int64_t words = kernels.multiplies_bf16 && call.q.dtype == WK_BFLOAT16 ? 2 : 1;
  const int64_t part_floats = ceil_div(call.num_keys, kWidthStep) * kWidthStep * call.head_width / words;
  const int64_t fitting = kPackedFloats / (2 * part_floats);
  const int64_t bunch = fitting < 1 ? 1 : fitting < num_heads ? fitting : num_heads;
  const int64_t num_blocks = ceil_div(call.num_queries, kBlockRows), floats = scratch_floats(call.head_width);
  FloatBuffer packed, scratch;
  WK_TRY(packed.allocate(kOp, bunch * 2 * part_floats));
  WK_TRY(scratch.allocate(kOp, num_threads() * floats));
  const auto head_at = [&](int64_t i) {
    float *keys = packed.data() + i * 2 * part_floats;
    return PackedHead{keys, keys + part_floats};
  };
  const int64_t tile_elements = (call.num_keys < kTileKeys ? call.num_keys : kTileKeys) * call.head_width;
  for (int64_t first = 0; first < num_heads; first += bunch) {
    const int64_t count = num_heads - first < bunch ? num_heads - first : bunch;
    parallel_for(count * num_tiles, rows_per_piece(tile_elements), [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) {
        kernels.pack(call, first + i / num_tiles, i % num_tiles, head_at(i / num_tiles));
      }
    });
    parallel_for_threads(count * num_blocks, 1, [&](int64_t begin, int64_t end, int32_t thread) {
      const AttentionScratch memory = scratch_at(scratch.data() + thread * floats, call.head_width);
      for (int64_t i = begin; i < end; ++i) {
        const int64_t head = i / num_blocks, row = i % num_blocks * kBlockRows;
        const int64_t last = row + kBlockRows < call.num_queries ? row + kBlockRows : call.num_queries;
        kernels.forward(call, first + head, row, last, head_at(head), memory);
      }
    });
  }
  return WK_OK;
}

}  // namespace
}  // namespace wk

using namespace wk;

extern "C" wk_status wk_attention(const wk_tensor *out, const wk_tensor *lse, const wk_tensor *q, const wk_tensor *k,
                                  const wk_tensor *v, const wk_tensor *k_lengths, double scale, void * /*stream*/) {
  WK_TRY(check(out, lse, q, k, v, k_lengths));
  const AttentionKernels *kernels;
  WK_TRY(select_attention_kernels(&kernels));
  AttentionForward call;
  call.q = read_heads(*q);
  call.k = read_heads(*k);
  call.v = read_heads(*v);
  call.out = read_heads(*out);
  call.lse = static_cast<float *>(lse->data);
  call.num_heads = q->shape[2];
  call.num_queries = q->shape[1];
  call.num_keys = k->shape[1];
  call.head_width = q->shape[3];
  call.scale = static_cast<float>(scale);
  WK_TRY(read_lengths(k_lengths, q->shape[0], &call));
  if (element_count(*out) == 0) return WK_OK;
  prefer_huge_pages(out);
  return run(*kernels, call, q->shape[0] * q->shape[2]);
}
