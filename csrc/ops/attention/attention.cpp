// SPDX-License-Identifier: Apache-2.0
#include "common/memory.h"
#include "common/parallel.h"
#include "ops/attention/attention_cpu.h"

namespace wk {
namespace {

constexpr const char *kOp = "attention";
constexpr int64_t kWidthStep = 16;
constexpr int64_t kPackedFloats = 16 << 20;  // of heads that are packed together: 64 MiB
constexpr int64_t kPieces = 8;               // that heads are cut into for the backward, where they are fewer

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

// ---- backward ----

// How a call is cut, by its shape alone: results must not depend on the number of threads.
struct Plan {
  int64_t rows_floats;  // of one head's queries in fp32, rounded up to whole blocks
  int64_t word_floats;  // the same in words
  int64_t head_floats;  // of what is packed of one head
  int64_t bunch;        // heads at once
  int64_t num_parts;    // of a head's keys
  int64_t part_keys;
};

Plan plan_backward(const AttentionForward &call, bool multiplies_bf16, int64_t num_heads) {
  const int64_t num_blocks = ceil_div(call.num_queries, kBlockRows);
  const int64_t rows = kBlockRows * (num_blocks > 0 ? num_blocks : 1);  // without queries, grad_k and grad_v are zeros
  Plan plan;
  plan.rows_floats = rows * call.head_width;
  plan.word_floats = plan.rows_floats / (multiplies_bf16 && call.q.dtype == WK_BFLOAT16 ? 2 : 1);
  plan.head_floats = 4 * plan.word_floats + 2 * rows;
  const int64_t fitting = kPackedFloats / (plan.head_floats + plan.rows_floats);
  plan.bunch = fitting < 1 ? 1 : fitting < num_heads ? fitting : num_heads;
  const int64_t num_tiles = ceil_div(call.num_keys, kGradientKeys), wanted = ceil_div(kPieces, plan.bunch);
  const int64_t part_tiles = ceil_div(num_tiles, wanted);
  plan.part_keys = part_tiles * kGradientKeys;
  plan.num_parts = ceil_div(num_tiles, part_tiles);
  return plan;
}

PackedQueries queries_at(float *memory, const Plan &plan, int64_t head_width) {
  const int64_t step = plan.word_floats;
  float *lse = memory + 4 * step;
  return {memory, memory + step, memory + 2 * step, memory + 3 * step, lse, lse + plan.rows_floats / head_width};
}

GradientScratch gradient_scratch_at(float *memory, int64_t head_width) {
  const int64_t keys = kGradientKeys * head_width, scores = kGradientKeys * kBlockRows;
  float *square = memory + 5 * keys;
  return {memory, memory + keys,   memory + 2 * keys,   memory + 3 * keys,   memory + 4 * keys,
          square, square + scores, square + 2 * scores, square + 3 * scores, square + 4 * scores};
}

wk_status run_backward(const AttentionBackwardKernels &kernels, const AttentionBackward &call, const Plan &plan,
                       int64_t num_heads) {
  const int64_t width = call.forward.head_width, num_queries = call.forward.num_queries;
  const int64_t num_blocks = ceil_div(num_queries, kBlockRows), floats = gradient_scratch_floats(width);
  const int64_t grain = rows_per_piece(kBlockRows * width), parts = plan.num_parts;
  FloatBuffer packed, grad_q, scratch;
  WK_TRY(packed.allocate(kOp, plan.bunch * plan.head_floats));
  WK_TRY(grad_q.allocate(kOp, plan.bunch * parts * plan.rows_floats));
  WK_TRY(scratch.allocate(kOp, num_threads() * floats));
  const auto queries = [&](int64_t i) { return queries_at(packed.data() + i * plan.head_floats, plan, width); };
  const auto shares = [&](int64_t i) { return grad_q.data() + i * plan.rows_floats; };
  const auto block_end = [&](int64_t row) { return row + kBlockRows < num_queries ? row + kBlockRows : num_queries; };
  for (int64_t first = 0; first < num_heads; first += plan.bunch) {
    const int64_t count = num_heads - first < plan.bunch ? num_heads - first : plan.bunch;
    parallel_for(count * num_blocks, grain, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) {
        const int64_t head = i / num_blocks, row = i % num_blocks * kBlockRows;
        kernels.pack(call, first + head, row, block_end(row), queries(head));
      }
    });
    parallel_for_threads(count * parts, 1, [&](int64_t begin, int64_t end, int32_t thread) {
      const GradientScratch memory = gradient_scratch_at(scratch.data() + thread * floats, width);
      for (int64_t i = begin; i < end; ++i) {
        const int64_t key = i % parts * plan.part_keys, left = call.forward.num_keys - key;
        const int64_t last = left < plan.part_keys ? key + left : key + plan.part_keys;
        kernels.backward(call, first + i / parts, key, last, queries(i / parts), shares(i), memory);
      }
    });
    parallel_for(count * num_blocks, grain, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) {
        const int64_t head = i / num_blocks, row = i % num_blocks * kBlockRows;
        kernels.finish(call, first + head, row, block_end(row), shares(head * parts), parts, plan.rows_floats);
      }
    });
  }
  return WK_OK;
}

wk_status check_gradients(const wk_tensor *grad_q, const wk_tensor *grad_k, const wk_tensor *grad_v,
                          const wk_tensor *grad_out, const wk_tensor *grad_lse, const wk_tensor *q, const wk_tensor *k,
                          const wk_tensor *lse) {
  WK_TRY(check_heads("grad_q", grad_q, q->shape, q->dtype));
  WK_TRY(check_heads("grad_k", grad_k, k->shape, q->dtype));
  WK_TRY(check_heads("grad_v", grad_v, k->shape, q->dtype));
  if (grad_out) WK_TRY(check_heads("grad_out", grad_out, q->shape, q->dtype));
  if (grad_lse) WK_TRY(check_dense(kOp, "grad_lse", grad_lse, WK_FLOAT32, 3, lse->shape));
  return require_all_cpu(kOp, {grad_q, grad_k, grad_v, grad_out, grad_lse});
}

wk_status read_call(const wk_tensor *out, const wk_tensor *lse, const wk_tensor *q, const wk_tensor *k,
                    const wk_tensor *v, const wk_tensor *k_lengths, double scale, AttentionForward *call) {
  WK_TRY(check(out, lse, q, k, v, k_lengths));
  call->q = read_heads(*q);
  call->k = read_heads(*k);
  call->v = read_heads(*v);
  call->out = read_heads(*out);
  call->lse = static_cast<float *>(lse->data);
  call->num_heads = q->shape[2];
  call->num_queries = q->shape[1];
  call->num_keys = k->shape[1];
  call->head_width = q->shape[3];
  call->scale = static_cast<float>(scale);
  return read_lengths(k_lengths, q->shape[0], call);
}

}  // namespace
}  // namespace wk

using namespace wk;

extern "C" wk_status wk_attention(const wk_tensor *out, const wk_tensor *lse, const wk_tensor *q, const wk_tensor *k,
                                  const wk_tensor *v, const wk_tensor *k_lengths, double scale, void * /*stream*/) {
  AttentionForward call;
  WK_TRY(read_call(out, lse, q, k, v, k_lengths, scale, &call));
  const AttentionKernels *kernels;
  WK_TRY(select_attention_kernels(&kernels));
  if (element_count(*out) == 0) return WK_OK;
  prefer_huge_pages(out);
  return run(*kernels, call, q->shape[0] * q->shape[2]);
}

extern "C" wk_status wk_attention_backward(const wk_tensor *grad_q, const wk_tensor *grad_k, const wk_tensor *grad_v,
                                           const wk_tensor *grad_out, const wk_tensor *grad_lse, const wk_tensor *out,
                                           const wk_tensor *lse, const wk_tensor *q, const wk_tensor *k,
                                           const wk_tensor *v, const wk_tensor *k_lengths, double scale,
                                           void * /*stream*/) {
  AttentionBackward call;
  WK_TRY(read_call(out, lse, q, k, v, k_lengths, scale, &call.forward));
  WK_TRY(check_gradients(grad_q, grad_k, grad_v, grad_out, grad_lse, q, k, lse));
  const AttentionKernels *kernels;
  const AttentionBackwardKernels *backward_kernels;
  WK_TRY(select_attention_kernels(&kernels));
  WK_TRY(select_attention_backward_kernels(&backward_kernels));
  call.grad_q = read_heads(*grad_q);
  call.grad_k = read_heads(*grad_k);
  call.grad_v = read_heads(*grad_v);
  call.grad_out = grad_out ? read_heads(*grad_out) : Heads{};
  call.grad_lse = grad_lse ? static_cast<const float *>(grad_lse->data) : nullptr;
  const int64_t num_heads = q->shape[0] * q->shape[2];
  if (num_heads == 0) return WK_OK;
  for (const wk_tensor *each : {grad_q, grad_k, grad_v}) prefer_huge_pages(each);
  return run_backward(*backward_kernels, call, plan_backward(call.forward, kernels->multiplies_bf16, num_heads),
                      num_heads);
}
