// SPDX-License-Identifier: Apache-2.0
#include "common/memory.h"
#include "common/parallel.h"
#include "ops/attention_8bit/attention_8bit_cpu.h"
#include "ops/attention_8bit/attention_8bit_cuda.h"

namespace wk {
namespace {

constexpr const char *kOp = "attention_8bit";
constexpr int64_t kValuesTile = 128;         // P is a multiple of it
constexpr int64_t kPackedFloats = 16 << 20;  // of heads that are packed together: 64 MiB

int64_t ceil_div(int64_t count, int64_t step) { return (count + step - 1) / step; }

using Arguments = Attention8bitArguments;

wk_status check_values(const Arguments &in, int64_t positions) {
  const wk_tensor &q = *in.q;
  const int64_t step = in.v_tokens_per_scale;
  WK_REQUIRE(step >= 0 && step % kValuesTile == 0, "[%s] v_tokens_per_scale must be 0 or a multiple of %lld, got %lld",
             kOp, static_cast<long long>(kValuesTile), static_cast<long long>(step));
  const int64_t v_shape[4] = {q.shape[0], q.shape[1], q.shape[3], positions};
  const int64_t scale_shape[4] = {q.shape[0], q.shape[1], step ? ceil_div(positions, step) : 1, q.shape[3]};
  const int64_t mean_shape[3] = {q.shape[0], q.shape[1], q.shape[3]};
  const int32_t v_dtype = q.device == WK_CUDA ? WK_FLOAT8_E4M3 : WK_INT8;
  WK_TRY(check_dense(kOp, "v", in.v, v_dtype, 4, v_shape));
  WK_TRY(check_dense(kOp, "v_scale", in.v_scale, WK_FLOAT32, 4, scale_shape));
  return check_dense(kOp, "v_mean", in.v_mean, WK_FLOAT32, 3, mean_shape);
}

wk_status check_one_device(const Arguments &in) {
  const wk_tensor *others[] = {in.out, in.lse,     in.q_scale, in.k,         in.k_scale,   in.k_mean,
                               in.v,   in.v_scale, in.v_mean,  in.k_lengths, in.prior_out, in.prior_lse};
  const char *names[] = {"out", "lse",     "q_scale", "k",         "k_scale",   "k_mean",
                         "v",   "v_scale", "v_mean",  "k_lengths", "prior_out", "prior_lse"};
  for (size_t i = 0; i < sizeof others / sizeof *others; ++i) {
    if (others[i]) WK_TRY(check_same_device(kOp, names[i], *others[i], "q", *in.q));
  }
  return WK_OK;
}

wk_status check(const Arguments &in) {
  const wk_tensor *out = in.out, *lse = in.lse;
  WK_TRY(check_codes(kOp, "q", in.q));
  WK_TRY(check_codes(kOp, "k", in.k));
  WK_REQUIRE(in.q->ndim == 4 && in.k->ndim == 4, "[%s] q and k must have 4 dimensions, got %d and %d", kOp, in.q->ndim,
             in.k->ndim);
  const int64_t batch = in.q->shape[0], heads = in.q->shape[1], length = in.q->shape[2], width = in.q->shape[3];
  const int64_t num_keys = in.k->shape[2];
  WK_REQUIRE(num_keys > 0, "[%s] k must have at least one key, got none", kOp);
  WK_REQUIRE(width > 0 && width % kGroupColumns == 0, "[%s] H must be a multiple of %lld, got %lld", kOp,
             static_cast<long long>(kGroupColumns), static_cast<long long>(width));
  WK_REQUIRE(in.q_tokens_per_scale > 0 && in.k_tokens_per_scale > 0,
             "[%s] tokens_per_scale of q and k must be at least 1, got %lld and %lld", kOp,
             static_cast<long long>(in.q_tokens_per_scale), static_cast<long long>(in.k_tokens_per_scale));
  const int64_t q_shape[4] = {batch, heads, length, width}, k_shape[4] = {batch, heads, num_keys, width};
  const int64_t q_scales[3] = {batch, heads, ceil_div(length, in.q_tokens_per_scale)};
  const int64_t k_scales[3] = {batch, heads, ceil_div(num_keys, in.k_tokens_per_scale)};
  const int64_t mean_shape[3] = {batch, heads, width}, lse_shape[3] = {batch, heads, length};
  WK_TRY(check_dense(kOp, "q", in.q, WK_INT8, 4, q_shape));
  WK_TRY(check_dense(kOp, "q_scale", in.q_scale, WK_FLOAT32, 3, q_scales));
  WK_TRY(check_dense(kOp, "k", in.k, WK_INT8, 4, k_shape));
  WK_TRY(check_dense(kOp, "k_scale", in.k_scale, WK_FLOAT32, 3, k_scales));
  WK_TRY(check_dense(kOp, "k_mean", in.k_mean, WK_FLOAT32, 3, mean_shape));
  WK_TRY(check_values(in, ceil_div(num_keys, kValuesTile) * kValuesTile));
  const int64_t out_shape[4] = {batch, length, heads, width};
  WK_TRY(check_floating(kOp, "out", out));
  WK_TRY(check_dense(kOp, "out", out, out->dtype, 4, out_shape));
  WK_TRY(check_dense(kOp, "lse", lse, WK_FLOAT32, 3, lse_shape));
  WK_REQUIRE(!in.prior_out == !in.prior_lse, "[%s] prior_out and prior_lse must come together, got one", kOp);
  if (in.prior_out) {
    WK_TRY(check_floating(kOp, "prior_out", in.prior_out));
    WK_TRY(check_shape(kOp, "prior_out", *in.prior_out, 4, out_shape));
    WK_TRY(check_dense(kOp, "prior_lse", in.prior_lse, WK_FLOAT32, 3, lse_shape));
  }
  if (in.k_lengths) {
    WK_REQUIRE(in.k_lengths->dtype == WK_INT32 || in.k_lengths->dtype == WK_INT64,
               "[%s] k_lengths must be int32 or int64, got %s", kOp, dtype_name(in.k_lengths->dtype));
    WK_TRY(check_dense(kOp, "k_lengths", in.k_lengths, in.k_lengths->dtype, 1, &batch));
  }
  return check_one_device(in);
}

wk_status read_lengths(const wk_tensor *k_lengths, int64_t batch, int64_t num_keys, Attention8bit *call) {
  call->k_lengths = nullptr;
  if (!k_lengths) return WK_OK;
  call->k_lengths = k_lengths->data;
  call->k_lengths_dtype = k_lengths->dtype;
  for (int64_t sample = 0; sample < batch; ++sample) {
    const int64_t count = visible_keys(*call, sample);
    WK_REQUIRE(count >= 0 && count <= num_keys, "[%s] k_lengths must lie in [0, %lld], got %lld", kOp,
               static_cast<long long>(num_keys), static_cast<long long>(count));
  }
  return WK_OK;
}

Quantised read_quantised(const wk_tensor &codes, const wk_tensor &scales, const wk_tensor *mean,
                         int64_t tokens_per_scale) {
  return {static_cast<const int8_t *>(codes.data), static_cast<const float *>(scales.data),
          mean ? static_cast<const float *>(mean->data) : nullptr, scales.shape[2], tokens_per_scale};
}

// Memory for the heads that are packed at once, one after the other.
struct PackedHeads {
  FloatBuffer buffer;
  int64_t head_bytes, key_bytes, padded;

  wk_status allocate(const Attention8bit &call, int64_t count) {
    padded = call.num_tiles * call.tile;
    key_bytes = padded * call.head_width;
    head_bytes = 2 * key_bytes + padded * 8;
    return buffer.allocate(kOp, count * head_bytes / 4);
  }
  PackedHead at(int64_t i) const {
    int8_t *keys = reinterpret_cast<int8_t *>(buffer.data()) + i * head_bytes;
    int8_t *values = keys + key_bytes;
    int32_t *offsets = reinterpret_cast<int32_t *>(values + key_bytes);
    return {keys, values, offsets, reinterpret_cast<float *>(offsets + padded)};
  }
};

Attention8bitScratch scratch_at(float *memory, int64_t head_width) {
  float *powers = memory + kBlockRows * head_width;
  int32_t *products = reinterpret_cast<int32_t *>(powers + kMaxRowsAtOnce * kMaxTile);
  uint8_t *rows = reinterpret_cast<uint8_t *>(products + kMaxRowsAtOnce * head_width);
  return {memory, powers, products, rows, rows + kBlockRows * head_width};
}

// Heads are packed and used in bunches, so that memory stays linear in the length and small.
wk_status run(const Attention8bitKernels &kernels, const Attention8bit &call, int64_t num_heads) {
  const int64_t head_floats = (call.head_width + 4) * call.num_tiles * call.tile / 2;
  const int64_t fitting = kPackedFloats / head_floats;
  const int64_t bunch = fitting < 1 ? 1 : fitting < num_heads ? fitting : num_heads;
  const int64_t num_blocks = ceil_div(call.num_queries, kBlockRows), floats = scratch_floats(call.head_width);
  PackedHeads packed;
  FloatBuffer scratch;
  WK_TRY(packed.allocate(call, bunch));
  WK_TRY(scratch.allocate(kOp, num_threads() * floats));
  for (int64_t first = 0; first < num_heads; first += bunch) {
    const int64_t count = num_heads - first < bunch ? num_heads - first : bunch;
    parallel_for(count * call.num_tiles, rows_per_piece(call.tile * call.head_width), [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) {
        const int64_t head = i / call.num_tiles;
        kernels.pack(call, first + head, i % call.num_tiles, packed.at(head));
      }
    });
    parallel_for_threads(count * num_blocks, 1, [&](int64_t begin, int64_t end, int32_t thread) {
      for (int64_t i = begin; i < end; ++i) {
        const int64_t head = i / num_blocks, row = i % num_blocks * kBlockRows;
        kernels.forward(call, first + head, row,
                        row + kBlockRows < call.num_queries ? row + kBlockRows : call.num_queries, packed.at(head),
                        scratch_at(scratch.data() + thread * floats, call.head_width));
      }
    });
  }
  return WK_OK;
}

}  // namespace
}  // namespace wk

using namespace wk;

extern "C" wk_status wk_attention_8bit(const wk_tensor *out, const wk_tensor *lse, const wk_tensor *q,
                                       const wk_tensor *q_scale, const wk_tensor *k, const wk_tensor *k_scale,
                                       const wk_tensor *k_mean, const wk_tensor *v, const wk_tensor *v_scale,
                                       const wk_tensor *v_mean, const wk_tensor *k_lengths, const wk_tensor *prior_out,
                                       const wk_tensor *prior_lse, int64_t q_tokens_per_scale,
                                       int64_t k_tokens_per_scale, int64_t v_tokens_per_scale, double scale,
                                       void *stream) {
  const Arguments in = {out,
                        lse,
                        q,
                        q_scale,
                        k,
                        k_scale,
                        k_mean,
                        v,
                        v_scale,
                        v_mean,
                        k_lengths,
                        prior_out,
                        prior_lse,
                        q_tokens_per_scale,
                        k_tokens_per_scale,
                        v_tokens_per_scale,
                        scale};
  WK_TRY(check(in));
  if (q->device == WK_CUDA) return attention_8bit_forward_cuda(in, stream);
  const Attention8bitKernels *kernels;
  WK_TRY(select_attention_8bit_kernels(&kernels));
  Attention8bit call;
  call.q = read_quantised(*q, *q_scale, nullptr, q_tokens_per_scale);
  call.k = read_quantised(*k, *k_scale, k_mean, k_tokens_per_scale);
  call.v = read_quantised(*v, *v_scale, v_mean, v_tokens_per_scale);
  call.num_heads = q->shape[1];
  call.num_queries = q->shape[2];
  call.num_keys = k->shape[2];
  call.head_width = q->shape[3];
  call.positions = v->shape[3];
  call.tile = v_tokens_per_scale % kMaxTile == 0 ? kMaxTile : kMinTile;
  call.num_tiles = ceil_div(call.num_keys, call.tile);
  call.scale = static_cast<float>(scale);
  WK_TRY(read_lengths(k_lengths, q->shape[0], call.num_keys, &call));
  WK_TRY(fold_rows(kOp, "out", *out, &call.out));
  call.lse = static_cast<float *>(lse->data);
  WK_TRY(fold_optional_rows(kOp, "prior_out", prior_out, &call.prior_out));
  call.prior_lse = prior_lse ? static_cast<const float *>(prior_lse->data) : nullptr;
  if (element_count(*out) == 0) return WK_OK;
  prefer_huge_pages(out);
  return run(*kernels, call, q->shape[0] * q->shape[1]);
}
