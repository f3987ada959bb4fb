// SPDX-License-Identifier: Apache-2.0
// The copy engine: boxes of a tensor into shared memory, swizzled, zeros beyond the sides; one thread asks for all.
#pragma once
#include <cudaTypedefs.h>

#include <initializer_list>

#include "common/cuda/launch.h"
#include "common/cuda/mbarrier.cuh"

namespace wk {

// cuTensorMapEncodeTiled out of the driver that is there: linked, the library would not load where there is none.
inline wk_status find_tensor_map_encoder(const char *op, PFN_cuTensorMapEncodeTiled_v12000 *encode) {
  void *entry = nullptr;
  cudaDriverEntryPointQueryResult found = cudaDriverEntryPointSymbolNotFound;
#if CUDART_VERSION >= 12050
  const cudaError_t error =
      cudaGetDriverEntryPointByVersion("cuTensorMapEncodeTiled", &entry, 12000, cudaEnableDefault, &found);
#else
  const cudaError_t error = cudaGetDriverEntryPoint("cuTensorMapEncodeTiled", &entry, cudaEnableDefault, &found);
#endif
  WK_TRY(cuda_status(op, error));
  if (found != cudaDriverEntryPointSuccess || !entry) {
    return fail(WK_ERROR_UNSUPPORTED, "[%s] the driver must be of CUDA 12.0 or newer, it has no cuTensorMapEncodeTiled",
                op);
  }
  *encode = reinterpret_cast<PFN_cuTensorMapEncodeTiled_v12000>(entry);
  return WK_OK;
}

// A dense tensor of bytes [.., columns] and the box of it that a load brings: `extents` and `box` fastest first, two to
// four of them. Rows of the box are 128 bytes and land swizzled; `data` and each stride must be multiples of 16 bytes.
inline wk_status make_tensor_map(const char *op, const char *name, CUtensorMap *map, const void *data,
                                 std::initializer_list<int64_t> extents, std::initializer_list<uint32_t> box) {
  PFN_cuTensorMapEncodeTiled_v12000 encode;
  WK_TRY(find_tensor_map_encoder(op, &encode));
  cuuint64_t sizes[4], strides[4];
  cuuint32_t boxes[4], steps[4] = {1, 1, 1, 1};
  uint32_t rank = 0;
  cuuint64_t stride = 1;
  for (const int64_t extent : extents) {
    sizes[rank] = static_cast<cuuint64_t>(extent);
    boxes[rank] = box.begin()[rank];
    stride *= sizes[rank];
    strides[rank++] = stride;  // of the next dimension: that of the first is one element and not told
  }
  const CUresult result = encode(map, CU_TENSOR_MAP_DATA_TYPE_UINT8, rank, const_cast<void *>(data), sizes, strides,
                                 boxes, steps, CU_TENSOR_MAP_INTERLEAVE_NONE, CU_TENSOR_MAP_SWIZZLE_128B,
                                 CU_TENSOR_MAP_L2_PROMOTION_L2_256B, CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE);
  if (result == CUDA_SUCCESS) return WK_OK;
  return fail(WK_ERROR_CUDA, "[%s] the driver must accept the layout of %s, it returned CUresult %d", op, name,
              static_cast<int>(result));
}

namespace device {

__device__ __forceinline__ void prefetch_tensor_map(const CUtensorMap *map) {
  asm volatile("prefetch.tensormap [%0];" ::"l"(map) : "memory");
}

// The box at these coordinates, fastest first; its bytes count towards the barrier's phase.
__device__ __forceinline__ void load_box(void *to, const CUtensorMap *map, const Barrier &barrier, int x, int y) {
  asm volatile(
      "cp.async.bulk.tensor.2d.shared::cluster.global.tile.mbarrier::complete_tx::bytes [%0], [%1, {%3, %4}], [%2];" ::
          "r"(shared_address(to)),
      "l"(map), "r"(barrier.address()), "r"(x), "r"(y)
      : "memory");
}
__device__ __forceinline__ void load_box(void *to, const CUtensorMap *map, const Barrier &barrier, int x, int y,
                                         int z) {
  asm volatile(
      "cp.async.bulk.tensor.3d.shared::cluster.global.tile.mbarrier::complete_tx::bytes "
      "[%0], [%1, {%3, %4, %5}], [%2];" ::"r"(shared_address(to)),
      "l"(map), "r"(barrier.address()), "r"(x), "r"(y), "r"(z)
      : "memory");
}
__device__ __forceinline__ void load_box(void *to, const CUtensorMap *map, const Barrier &barrier, int x, int y, int z,
                                         int w) {
  asm volatile(
      "cp.async.bulk.tensor.4d.shared::cluster.global.tile.mbarrier::complete_tx::bytes "
      "[%0], [%1, {%3, %4, %5, %6}], [%2];" ::"r"(shared_address(to)),
      "l"(map), "r"(barrier.address()), "r"(x), "r"(y), "r"(z), "r"(w)
      : "memory");
}

}  // namespace device
}  // namespace wk
