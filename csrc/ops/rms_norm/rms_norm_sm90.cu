// SPDX-License-Identifier: Apache-2.0
// A row stays in registers between its two uses, so memory is read once and written once. Narrow rows take a warp each
// (no barrier), wide ones a block; what is not aligned to 16 bytes goes element by element.
#include "common/cuda/launch.h"
#include "common/cuda/pack.cuh"
#include "ops/rms_norm/rms_norm_cuda.h"

namespace wk {
namespace {

using device::from_float;
using device::kPackSize;
using device::load_pack;
using device::Pack;
using device::round_to;
using device::row_offset;
using device::row_sum;
using device::store_pack;
using device::to_float;

constexpr const char *kOp = "rms_norm";
constexpr int kWarpRowsPerBlock = 4;
constexpr int kBlockThreads = 256;

// kThreads threads own a row of at most kThreads * kPacks packs. Blocks hold one row, or kWarpRowsPerBlock warps.
template <class T, class W, int kThreads, int kPacks>
__global__ void __launch_bounds__(kThreads == 32 ? 32 * kWarpRowsPerBlock : kThreads)
    rms_norm_fwd_kernel(Rows out, Rows x, const W *weight, float eps) {
  constexpr int kSize = kPackSize<T>;
  constexpr int kRowsPerBlock = kThreads == 32 ? kWarpRowsPerBlock : 1;
  const int64_t row = int64_t{blockIdx.x} * kRowsPerBlock + threadIdx.x / kThreads;
  if (row >= x.count) return;
  const T *x_row = reinterpret_cast<const T *>(x.data) + row_offset(x, row);
  T *out_row = reinterpret_cast<T *>(out.data) + row_offset(out, row);
  const int lane = threadIdx.x % kThreads;
  const int num_packs = static_cast<int>(x.width / kSize);

  Pack<T, kSize> packs[kPacks];
#pragma unroll
  for (int k = 0; k < kPacks; ++k) {
    const int at = lane + k * kThreads;
    if (at < num_packs) packs[k] = load_pack<T, kSize>(x_row + at * kSize);
  }
  float squares = 0.0f;
#pragma unroll
  for (int k = 0; k < kPacks; ++k) {
    if (lane + k * kThreads >= num_packs) break;
#pragma unroll
    for (int i = 0; i < kSize; ++i) squares += to_float(packs[k].values[i]) * to_float(packs[k].values[i]);
  }
  const float scale = rsqrtf(row_sum<kThreads>(squares) / static_cast<float>(x.width) + eps);

#pragma unroll
  for (int k = 0; k < kPacks; ++k) {
    const int at = lane + k * kThreads;
    if (at >= num_packs) break;
    const Pack<W, kSize> weights = load_pack<W, kSize>(weight + at * kSize);
#pragma unroll
    for (int i = 0; i < kSize; ++i) {
      const float normal = round_to<T>(to_float(packs[k].values[i]) * scale);
      packs[k].values[i] = from_float<T>(normal * to_float(weights.values[i]));
    }
    store_pack(out_row + at * kSize, packs[k]);
  }
}

// Any width and alignment; reads the row twice.
template <class T, class W>
__global__ void __launch_bounds__(kBlockThreads)
    rms_norm_fwd_scalar_kernel(Rows out, Rows x, const W *weight, int64_t weight_stride, float eps) {
  const int64_t row = blockIdx.x;
  const T *x_row = reinterpret_cast<const T *>(x.data) + row_offset(x, row);
  T *out_row = reinterpret_cast<T *>(out.data) + row_offset(out, row);
  float squares = 0.0f;
  for (int64_t i = threadIdx.x; i < x.width; i += kBlockThreads) squares += to_float(x_row[i]) * to_float(x_row[i]);
  const float scale = rsqrtf(row_sum<kBlockThreads>(squares) / static_cast<float>(x.width) + eps);
  for (int64_t i = threadIdx.x; i < x.width; i += kBlockThreads) {
    const float normal = round_to<T>(to_float(x_row[i]) * scale);
    out_row[i] = from_float<T>(normal * to_float(weight[i * weight_stride]));
  }
}

struct Launch {
  Rows out, x;
  const void *weight;
  int64_t weight_stride;
  float eps;
  cudaStream_t stream;
};

template <class T, class W, int kThreads, int kPacks>
void launch_packed(const Launch &call) {
  constexpr int kRowsPerBlock = kThreads == 32 ? kWarpRowsPerBlock : 1;
  const auto blocks = static_cast<unsigned>((call.x.count + kRowsPerBlock - 1) / kRowsPerBlock);
  rms_norm_fwd_kernel<T, W, kThreads, kPacks><<<blocks, kThreads * kRowsPerBlock, 0, call.stream>>>(
      call.out, call.x, static_cast<const W *>(call.weight), call.eps);
}

template <class T, class W>
void launch(const Launch &call) {
  const int64_t num_packs = call.x.width / kPackSize<T>;
  const bool is_weight_packable = reinterpret_cast<uintptr_t>(call.weight) % 16 == 0 && call.weight_stride == 1;
  if (!is_packable(call.x) || !is_packable(call.out) || !is_weight_packable || num_packs > kBlockThreads * 8) {
    rms_norm_fwd_scalar_kernel<T, W><<<static_cast<unsigned>(call.x.count), kBlockThreads, 0, call.stream>>>(
        call.out, call.x, static_cast<const W *>(call.weight), call.weight_stride, call.eps);
  } else if (num_packs <= 32 * 2) {
    launch_packed<T, W, 32, 2>(call);
  } else if (num_packs <= 32 * 8) {
    launch_packed<T, W, 32, 8>(call);
  } else if (num_packs <= kBlockThreads * 4) {
    launch_packed<T, W, kBlockThreads, 4>(call);
  } else {
    launch_packed<T, W, kBlockThreads, 8>(call);
  }
}

template <class T>
void launch_for_weight(const Launch &call, int32_t weight_dtype) {
  switch (weight_dtype) {
    case WK_FLOAT32: return launch<T, float>(call);
    case WK_BFLOAT16: return launch<T, __nv_bfloat16>(call);
    default: return launch<T, __half>(call);
  }
}

}  // namespace

wk_status rms_norm_forward_cuda(const wk_tensor &out, const wk_tensor &x, const wk_tensor &weight, double eps,
                                void *stream) {
  Launch call;
  WK_TRY(fold_rows(kOp, "out", out, &call.out));
  WK_TRY(fold_rows(kOp, "x", x, &call.x));
  if (call.x.count == 0 || call.x.width == 0) return WK_OK;
  WK_REQUIRE(call.x.count < int64_t{1} << 31, "[rms_norm] x must have fewer than 2^31 rows, got %lld",
             static_cast<long long>(call.x.count));
  call.weight = weight.data;
  call.weight_stride = weight.stride[0];
  call.eps = static_cast<float>(eps);
  call.stream = static_cast<cudaStream_t>(stream);

  const DeviceScope scope(x.device_index);
  WK_TRY(cuda_status(kOp, scope.error()));
  switch (x.dtype) {
    case WK_FLOAT32: launch_for_weight<float>(call, weight.dtype); break;
    case WK_BFLOAT16: launch_for_weight<__nv_bfloat16>(call, weight.dtype); break;
    default: launch_for_weight<__half>(call, weight.dtype); break;
  }
  return cuda_status(kOp, cudaGetLastError());
}

}  // namespace wk
