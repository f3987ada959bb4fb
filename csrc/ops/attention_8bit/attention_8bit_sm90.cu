// SPDX-License-Identifier: Apache-2.0
// 8-bit attention for Hopper: 128 queries of a head to a block, 128 keys to a step; one warpgroup loads, two multiply
// 64 queries each. attention_8bit_schedule_cuda.h says who waits for what, this file what is done meanwhile.
//
// Scores: integers whose sums start at the bits of the float 1.5 * 2^23, where a step is 1. Their bits are then the
// float 1.5 * 2^23 + dot, in the order of the integers, and one multiply-add makes the exponent of 2 of it. Weights
// are kept relative to 2^base, base being the row's largest exponent less log2(448), so that they fill the range of
// float8; rounded, they are the left factor of the second product in the registers where they lie. A tile's product is
// summed on its own, the tensor cores keep 13 bits of it, and joins the result in fp32.
//
// Source: arXiv 2411.10958 (codes, permuted values, two-level sums), arXiv 2407.08608 (the schedule).
#include "common/cuda/layout.h"
#include "common/cuda/pack.cuh"
#include "common/cuda/registers.cuh"
#include "common/cuda/tma.cuh"
#include "common/cuda/wgmma.cuh"
#include "ops/attention_8bit/attention_8bit_cuda.h"
#include "ops/attention_8bit/attention_8bit_schedule_cuda.h"

namespace wk {
namespace {

using namespace attention_8bit;
using device::Barrier;
using layout::kBytesPerProduct;
using layout::kWarpgroupRows;
using layout::kWarpgroupThreads;

constexpr const char *kOp = "attention_8bit";
constexpr int kWidth = 128;  // of a head: a row of a tile
constexpr int kRows = kConsumers * kWarpgroupRows;
constexpr int kTileKeys = 128;
constexpr int kTileBytes = kTileKeys * kWidth;
constexpr int kProducts = kWidth / kBytesPerProduct;  // instructions of either product
constexpr int kShare = kWarpgroupRows * kTileKeys / kWarpgroupThreads;
constexpr int kThreads = (1 + kConsumers) * kWarpgroupThreads;
// 65,536 registers in all, 168 for each of 384 threads at the start.
constexpr int kProducerRegisters = 24, kConsumerRegisters = 240;
constexpr bool kTakesTurns = true;
constexpr int kFirstTurn = 1;  // named barriers, one of each consumer

constexpr uint32_t kMagicBits = 0x4B400000;  // 1.5 * 2^23 holds 2^22 to either side; dots stay below 2^21
constexpr float kMagic = 12582912.0f, kLog2E = 1.4426950408889634f, kLn2 = 0.6931471805599453f;
constexpr float kLog2Of448 = 8.807354922057604f;
constexpr float kSmallest = 1.17549435e-38f;

struct Shared {
  alignas(layout::kPatternBytes) int8_t queries[kRows * kWidth];
  int8_t tiles[2][kStages][kTileBytes];
  Barrier queries_full, full[2][kStages], empty[2][kStages];
};
constexpr int kSharedBytes = sizeof(Shared) + layout::kPatternBytes;  // it starts where the pattern does
static_assert(kSharedBytes == 149504, "BLOCK of backend_cuda.py says so too");

struct Call {
  const float *q_scale, *k_scale, *k_mean, *v_scale, *v_mean;
  const void *k_lengths;  // null: all
  bool has_wide_lengths;
  Rows out, prior_out;  // rows of kWidth: [B, L, N]; data null: none
  float *lse;
  const float *prior_lse;
  int num_queries, num_keys, q_tokens_per_scale, num_q_scales, k_tiles_per_scale, num_k_scales;
  float scale;
};

struct Place {
  int sample, head_of_sample, num_heads, head, first_query;

  __device__ static Place of_block() {
    const int sample = static_cast<int>(blockIdx.z), num_heads = static_cast<int>(gridDim.y);
    const int head_of_sample = static_cast<int>(blockIdx.y);
    return {sample, head_of_sample, num_heads, sample * num_heads + head_of_sample,
            static_cast<int>(blockIdx.x) * kRows};
  }
};

__device__ int visible_keys(const Call &call, int sample) {
  if (!call.k_lengths) return call.num_keys;
  const int64_t count = call.has_wide_lengths ? static_cast<const int64_t *>(call.k_lengths)[sample]
                                              : static_cast<const int32_t *>(call.k_lengths)[sample];
  return static_cast<int>(count < 0 ? 0 : count > call.num_keys ? call.num_keys : count);
}

__device__ __forceinline__ float exp2_of(float x) {
  float y;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}

// Of the four threads that share a row of a result.
template <class T, class Combine>
__device__ __forceinline__ T over_row(T value, const Combine &combine) {
  value = combine(value, __shfl_xor_sync(0xffffffffu, value, 1));
  return combine(value, __shfl_xor_sync(0xffffffffu, value, 2));
}

struct Producer {
  Shared &shared;
  const CUtensorMap &q, &k, &v;
  Place place;

  __device__ __forceinline__ void load_queries() {
    shared.queries_full.arrive_and_expect(sizeof shared.queries);
    device::load_box(shared.queries, &q, shared.queries_full, 0, place.first_query, place.head);
  }
  __device__ __forceinline__ void wait_until_empty(Tile tile, int stage, uint32_t phase) {
    shared.empty[tile][stage].wait(phase);
  }
  __device__ __forceinline__ void load(Tile tile, int stage, int index) {
    Barrier &full = shared.full[tile][stage];
    full.arrive_and_expect(kTileBytes);
    if (tile == kKeys) device::load_box(shared.tiles[tile][stage], &k, full, 0, index * kTileKeys, place.head);
    if (tile == kValues) device::load_box(shared.tiles[tile][stage], &v, full, index * kTileKeys, 0, place.head);
  }
};

struct Consumer {
  Shared &shared;
  const Call &call;
  int warpgroup, thread, num_visible;
  const float *k_scale;
  float q_factor[2];  // of the thread's two rows: scales of q times that of the logits, base 2
  float k_factor;     // of the tile that is weighed next

  uint32_t scores[kShare];       // bits of floats: dots, then weights
  uint32_t weights[kShare / 4];  // 8-bit codes
  float products[kShare], result[kShare];
  float base[2], total[2];      // of the thread's own columns
  float kept[2], next_kept[2];  // what the result is worth relative to a newer base

  __device__ __forceinline__ void wait_for_queries() { shared.queries_full.wait(0); }
  __device__ __forceinline__ void wait_until_full(Tile tile, int stage, uint32_t phase) {
    shared.full[tile][stage].wait(phase);
  }
  __device__ __forceinline__ void release(Tile tile, int stage) {
    if (thread % 32 == 0) shared.empty[tile][stage].arrive();
  }
  __device__ __forceinline__ void open_turns(int num_tiles) {
    if (num_tiles > 1 && warpgroup == kConsumers - 1) pass_turn(false);
  }
  __device__ __forceinline__ void wait_for_turn() {
    device::wait_for_others(kFirstTurn + warpgroup, 2 * kWarpgroupThreads);
  }
  // After its last turn the last consumer has none to pass it to.
  __device__ __forceinline__ void pass_turn(bool is_last) {
    const int next = (warpgroup + 1) % kConsumers;
    if (!is_last || next != 0) device::arrive_for_others(kFirstTurn + next, 2 * kWarpgroupThreads);
  }

  __device__ __forceinline__ void start_scores(int stage, int) {
#pragma unroll
    for (int i = 0; i < kShare; ++i) scores[i] = kMagicBits;
    const uint32_t left = device::shared_address(shared.queries + warpgroup * kWarpgroupRows * kWidth);
    const uint32_t right = device::shared_address(shared.tiles[kKeys][stage]);
    device::pin(scores);
    device::wgmma_fence();
#pragma unroll
    for (int i = 0; i < kProducts; ++i) {
      device::wgmma_s8(scores, layout::operand_descriptor(left + i * kBytesPerProduct),
                       layout::operand_descriptor(right + i * kBytesPerProduct), 1);
    }
    device::wgmma_commit();
  }

  __device__ __forceinline__ void start_products(int stage, int) {
    const uint32_t right = device::shared_address(shared.tiles[kValues][stage]);
    device::pin(weights);
    device::wgmma_fence();
#pragma unroll
    for (int i = 0; i < kProducts; ++i) {
      device::wgmma_e4m3(products, weights + i * layout::kOperandRegisters,
                         layout::operand_descriptor(right + i * kBytesPerProduct), i > 0);
    }
    device::wgmma_commit();
  }

  // All but the youngest kPending of what was started. Codes of new weights may only be written after the products of
  // the old: else ptxas has each product wait (C7513).
  template <int kPending>
  __device__ __forceinline__ void finish() {
    device::wgmma_wait<kPending>();
    device::pin(scores);
    if (kPending == 0) {
      device::pin(products);
      device::pin(weights);
    }
  }

  // -inf where there is no key to be seen, less than all bits of dots as an integer too.
  __device__ __forceinline__ void hide(int num_left) {
#pragma unroll
    for (int i = 0; i < kShare; ++i) {
      if (layout::result_column(thread, i) >= num_left) scores[i] = 0xff800000u;
    }
  }

  __device__ __forceinline__ void weigh(int index) {
    const float this_factor = k_factor;
    const int next = (index + 1) / call.k_tiles_per_scale;
    k_factor = k_scale[next < call.num_k_scales ? next : call.num_k_scales - 1];
    const int num_left = num_visible - index * kTileKeys;
    if (num_left < kTileKeys) hide(num_left);
#pragma unroll
    for (int row = 0; row < 2; ++row) weigh_row(row, this_factor);
  }

  __device__ __forceinline__ void weigh_row(int row, float factor) {
    int largest = static_cast<int>(scores[row * 2]);
#pragma unroll
    for (int i = 0; i < kShare; ++i) {
      if (i / 2 % 2 == row) largest = max(largest, static_cast<int>(scores[i]));
    }
    largest = over_row(largest, [](int x, int y) { return max(x, y); });
    // Never 0, times which -inf would be NaN; nothing to any other slope.
    const float slope = fmaf(q_factor[row], factor, kSmallest);
    float highest = fmaxf(base[row], fmaf(__int_as_float(largest) - kMagic, slope, -kLog2Of448));
    // kMagic * slope can be in the thousands: the base becomes what this sum, rounded, has left of it.
    const float offset = fmaf(slope, -kMagic, -highest);
    highest = -fmaf(slope, kMagic, offset);
    next_kept[row] = exp2_of(base[row] - highest);
    base[row] = highest;
    float sum[2] = {0.0f, 0.0f};  // two chains: half the wait
#pragma unroll
    for (int i = 0; i < kShare; ++i) {
      if (i / 2 % 2 != row) continue;
      const float weight = exp2_of(fmaf(__uint_as_float(scores[i]), slope, offset));
      sum[i % 2] += weight;
      scores[i] = __float_as_uint(weight);
    }
    total[row] = total[row] * next_kept[row] + (sum[0] + sum[1]);
  }

  __device__ __forceinline__ void add_products() {
#pragma unroll
    for (int i = 0; i < kShare; ++i) result[i] = fmaf(result[i], kept[i / 2 % 2], products[i]);
  }

  __device__ __forceinline__ void pack() {
#pragma unroll
    for (int i = 0; i < kShare / 4; ++i) {
      const int product = i / layout::kOperandRegisters, reg = i % layout::kOperandRegisters;
      const auto pair = [&](int byte) {
        const float low = __uint_as_float(scores[layout::operand_source(product, reg, byte)]);
        const float high = __uint_as_float(scores[layout::operand_source(product, reg, byte + 1)]);
        uint16_t codes;
        asm("cvt.rn.satfinite.e4m3x2.f32 %0, %1, %2;" : "=h"(codes) : "f"(high), "f"(low));
        return uint32_t{codes};
      };
      weights[i] = pair(0) | pair(2) << 16;
    }
    kept[0] = next_kept[0];
    kept[1] = next_kept[1];
  }
};

// log(e^x + e^y), and e^x and e^y as shares of their sum: -inf and zeros where both are -inf.
struct Shares {
  float logarithm, x, y;
};
__device__ Shares log_add_exp(float x, float y) {
  const float largest = fmaxf(x, y), offset = largest == -INFINITY ? 0.0f : largest;
  const float total = offset + log2f(exp2f((x - offset) * kLog2E) + exp2f((y - offset) * kLog2E)) * kLn2;
  const float finite = total == -INFINITY ? 0.0f : total;
  return {total, exp2f((x - finite) * kLog2E), exp2f((y - finite) * kLog2E)};
}

// A quarter of the row's codes times k's mean, out of swizzled rows.
__device__ float dot_with_mean(const int8_t *queries, int row, int quarter, const float *k_mean) {
  float sum = 0.0f;
  for (int piece = quarter * 2; piece < quarter * 2 + 2; ++piece) {
    const int8_t *codes = queries + layout::swizzled(row * kWidth + piece * 16);
    for (int i = 0; i < 16; ++i) sum = fmaf(codes[i], k_mean[piece * 16 + i], sum);
  }
  return sum;
}

template <class T>
__device__ void store_row(const Consumer &from, int half, int64_t row, const Call &call, const Place &place,
                          float inverse, bool is_empty, const Shares &shares) {
  T *out = reinterpret_cast<T *>(call.out.data) + device::row_offset(call.out, row);
  const int64_t prior_at = call.prior_out.data ? device::row_offset(call.prior_out, row) : 0;
  const auto prior = [&](int column) {
    const int64_t at = prior_at + column;
    switch (call.prior_out.dtype) {
      case WK_FLOAT32: return reinterpret_cast<const float *>(call.prior_out.data)[at];
      case WK_BFLOAT16: return device::to_float(reinterpret_cast<const __nv_bfloat16 *>(call.prior_out.data)[at]);
      default: return device::to_float(reinterpret_cast<const __half *>(call.prior_out.data)[at]);
    }
  };
  const float *v_scale = call.v_scale + place.head * kWidth, *v_mean = call.v_mean + place.head * kWidth;
#pragma unroll
  for (int i = half * 2; i < kShare; i += 4) {
    const int column = layout::result_column(from.thread, i);
    device::Pack<T, 2> pair;
#pragma unroll
    for (int k = 0; k < 2; ++k) {
      float y = fmaf(from.result[i + k] * inverse, v_scale[column + k], v_mean[column + k]);
      if (is_empty) y = 0.0f;
      if (call.prior_out.data) y = y * shares.x + prior(column + k) * shares.y;
      pair.values[k] = device::from_float<T>(y);
    }
    *reinterpret_cast<device::Pack<T, 2> *>(out + column) = pair;
  }
}

__device__ void finish_row(const Consumer &from, int half, const Call &call, const Place &place) {
  const int row_of_block = from.warpgroup * kWarpgroupRows + layout::result_row(from.thread, half * 2);
  const int query = place.first_query + row_of_block;
  const float sum = over_row(from.total[half], [](float x, float y) { return x + y; });
  const float mean = over_row(
      dot_with_mean(from.shared.queries, row_of_block, from.thread % 4, call.k_mean + int64_t{place.head} * kWidth),
      [](float x, float y) { return x + y; });
  if (query >= call.num_queries) return;
  const float q_scale =
      call.q_scale[int64_t{place.head} * call.num_q_scales + query / call.q_tokens_per_scale] * call.scale;
  const bool is_empty = sum == 0.0f;
  const int64_t at = int64_t{place.head} * call.num_queries + query;
  Shares shares = {is_empty ? -INFINITY : (from.base[half] + log2f(sum)) * kLn2 + mean * q_scale, 1.0f, 0.0f};
  if (call.prior_out.data) shares = log_add_exp(shares.logarithm, call.prior_lse[at]);
  if (from.thread % 4 == 0) call.lse[at] = shares.logarithm;
  const int64_t row = (int64_t{place.sample} * call.num_queries + query) * place.num_heads + place.head_of_sample;
  const float inverse = 1.0f / (is_empty ? 1.0f : sum);
  switch (call.out.dtype) {
    case WK_FLOAT32: return store_row<float>(from, half, row, call, place, inverse, is_empty, shares);
    case WK_BFLOAT16: return store_row<__nv_bfloat16>(from, half, row, call, place, inverse, is_empty, shares);
    default: return store_row<__half>(from, half, row, call, place, inverse, is_empty, shares);
  }
}

__device__ __forceinline__ void prepare(Consumer &consumer, const Call &call, const Place &place) {
  const float *q_scale = call.q_scale + int64_t{place.head} * call.num_q_scales;
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    const int query =
        place.first_query + consumer.warpgroup * kWarpgroupRows + layout::result_row(consumer.thread, half * 2);
    const float scale = query < call.num_queries ? q_scale[query / call.q_tokens_per_scale] * call.scale : 0.0f;
    // An infinite scale makes NaN of its row, also where all its dots are negative.
    consumer.q_factor[half] = fabsf(scale) < INFINITY ? scale * kLog2E : NAN;
    consumer.base[half] = -INFINITY;
    consumer.total[half] = consumer.kept[half] = consumer.next_kept[half] = 0.0f;
  }
#pragma unroll
  for (int i = 0; i < kShare; ++i) consumer.result[i] = 0.0f;
  consumer.k_scale = call.k_scale + int64_t{place.head} * call.num_k_scales;
  consumer.k_factor = consumer.k_scale[0];
}

__device__ __forceinline__ void init_barriers(Shared &shared) {
  shared.queries_full.init(1);
  for (int tile = kKeys; tile <= kValues; ++tile) {
    for (int stage = 0; stage < kStages; ++stage) {
      shared.full[tile][stage].init(1);
      shared.empty[tile][stage].init(kArrivalsToEmpty);
    }
  }
  device::publish_barriers();
}

__global__ void __launch_bounds__(kThreads, 1)
    attention_8bit_fwd_kernel(const __grid_constant__ CUtensorMap q, const __grid_constant__ CUtensorMap k,
                              const __grid_constant__ CUtensorMap v, const __grid_constant__ Call call) {
  extern __shared__ int8_t memory[];
  const uint32_t past = device::shared_address(memory) % layout::kPatternBytes;
  Shared &shared = *reinterpret_cast<Shared *>(memory + (past ? layout::kPatternBytes - past : 0));
  if (threadIdx.x == 0) init_barriers(shared);
  __syncthreads();

  const Place place = Place::of_block();
  const int num_visible = visible_keys(call, place.sample);
  const int num_tiles = (num_visible + kTileKeys - 1) / kTileKeys;
  // The same in all threads of a warp, and known to be.
  const int role = __shfl_sync(0xffffffffu, static_cast<int>(threadIdx.x) / kWarpgroupThreads, 0);
  if (role == 0) {
    device::release_registers<kProducerRegisters>();
    if (threadIdx.x != 0) return;
    Producer producer{shared, q, k, v, place};
    produce(producer, num_tiles);
  } else {
    device::claim_registers<kConsumerRegisters>();
    Consumer consumer{shared, call, role - 1, static_cast<int>(threadIdx.x) % kWarpgroupThreads, num_visible};
    prepare(consumer, call, place);
    consume<kTakesTurns>(consumer, num_tiles);
#pragma unroll
    for (int half = 0; half < 2; ++half) finish_row(consumer, half, call, place);
  }
}

wk_status check_format(const Attention8bitArguments &in) {
  const wk_tensor &q = *in.q;
  WK_REQUIRE(q.shape[3] == kWidth, "[%s] H must be %d on CUDA, got %lld", kOp, kWidth,
             static_cast<long long>(q.shape[3]));
  WK_REQUIRE(in.v_tokens_per_scale == 0, "[%s] v_tokens_per_scale must be 0 on CUDA, got %lld", kOp,
             static_cast<long long>(in.v_tokens_per_scale));
  WK_REQUIRE(in.k_tokens_per_scale % kTileKeys == 0,
             "[%s] k_tokens_per_scale must be a multiple of %d on CUDA, got %lld", kOp, kTileKeys,
             static_cast<long long>(in.k_tokens_per_scale));
  WK_REQUIRE(in.scale >= 0.0, "[%s] scale must be 0 or more on CUDA, got %g", kOp, in.scale);
  const int64_t most = (int64_t{1} << 31) - kRows;
  WK_REQUIRE(q.shape[2] <= most && in.k->shape[2] <= most, "[%s] L and S must be at most %lld, got %lld and %lld", kOp,
             static_cast<long long>(most), static_cast<long long>(q.shape[2]), static_cast<long long>(in.k->shape[2]));
  WK_REQUIRE(q.shape[0] < 65536 && q.shape[1] < 65536, "[%s] B and N must be below 65536 on CUDA, got %lld and %lld",
             kOp, static_cast<long long>(q.shape[0]), static_cast<long long>(q.shape[1]));
  const bool is_aligned = is_packable_address(in.q->data) && is_packable_address(in.k->data) &&
                          is_packable_address(in.v->data) && is_packable_address(in.out->data);
  WK_REQUIRE(is_aligned, "[%s] q, k, v and out must start on 16 bytes on CUDA, one does not", kOp);
  return WK_OK;
}

const float *floats(const wk_tensor *tensor) { return tensor ? static_cast<const float *>(tensor->data) : nullptr; }

wk_status read_call(const Attention8bitArguments &in, Call *call) {
  WK_TRY(fold_rows(kOp, "out", *in.out, &call->out));
  WK_TRY(fold_optional_rows(kOp, "prior_out", in.prior_out, &call->prior_out));
  call->q_scale = floats(in.q_scale);
  call->k_scale = floats(in.k_scale);
  call->k_mean = floats(in.k_mean);
  call->v_scale = floats(in.v_scale);
  call->v_mean = floats(in.v_mean);
  call->prior_lse = floats(in.prior_lse);
  call->lse = static_cast<float *>(in.lse->data);
  call->k_lengths = in.k_lengths ? in.k_lengths->data : nullptr;
  call->has_wide_lengths = in.k_lengths && in.k_lengths->dtype == WK_INT64;
  call->num_queries = static_cast<int>(in.q->shape[2]);
  call->num_keys = static_cast<int>(in.k->shape[2]);
  // Blocks longer than the tensor are as long as it.
  const int64_t num_queries = in.q->shape[2], num_tiles = in.v->shape[3] / kTileKeys;
  const int64_t tiles_per_scale = in.k_tokens_per_scale / kTileKeys;
  call->q_tokens_per_scale =
      static_cast<int>(in.q_tokens_per_scale < num_queries ? in.q_tokens_per_scale : num_queries);
  call->k_tiles_per_scale = static_cast<int>(tiles_per_scale < num_tiles ? tiles_per_scale : num_tiles);
  call->num_q_scales = static_cast<int>(in.q_scale->shape[2]);
  call->num_k_scales = static_cast<int>(in.k_scale->shape[2]);
  call->scale = static_cast<float>(in.scale);
  return WK_OK;
}

}  // namespace

wk_status attention_8bit_forward_cuda(const Attention8bitArguments &in, void *stream) {
  WK_TRY(check_format(in));
  if (element_count(*in.out) == 0) return WK_OK;
  Call call;
  WK_TRY(read_call(in, &call));
  const DeviceScope scope(in.q->device_index);
  WK_TRY(cuda_status(kOp, scope.error()));
  WK_TRY(require_hopper(kOp, in.q->device_index));

  const int64_t heads = in.q->shape[0] * in.q->shape[1];
  CUtensorMap q, k, v;
  WK_TRY(make_tensor_map(kOp, "q", &q, in.q->data, {kWidth, in.q->shape[2], heads}, {kWidth, kRows, 1}));
  WK_TRY(make_tensor_map(kOp, "k", &k, in.k->data, {kWidth, in.k->shape[2], heads}, {kWidth, kTileKeys, 1}));
  WK_TRY(make_tensor_map(kOp, "v", &v, in.v->data, {in.v->shape[3], kWidth, heads}, {kTileKeys, kWidth, 1}));
  WK_TRY(cuda_status(
      kOp, cudaFuncSetAttribute(attention_8bit_fwd_kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, kSharedBytes)));
  const dim3 grid(static_cast<unsigned>((in.q->shape[2] + kRows - 1) / kRows), static_cast<unsigned>(in.q->shape[1]),
                  static_cast<unsigned>(in.q->shape[0]));
  attention_8bit_fwd_kernel<<<grid, kThreads, kSharedBytes, static_cast<cudaStream_t>(stream)>>>(q, k, v, call);
  return cuda_status(kOp, cudaGetLastError());
}

}  // namespace wk
