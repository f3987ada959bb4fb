// SPDX-License-Identifier: Apache-2.0
// Where things lie on Hopper: bytes of a tile in shared memory, elements of a product in registers. Plain arithmetic,
// the same for kernels and for the tests on the host.
//
// Source: PTX ISA, "Asynchronous Warpgroup Level Matrix Instructions" and "Tensor Swizzling Modes".
#pragma once
#include <cstdint>

#ifdef __CUDACC__
#define WK_HOST_DEVICE __host__ __device__ __forceinline__
#else
#define WK_HOST_DEVICE inline
#endif

namespace wk::layout {

constexpr int kWarpgroupThreads = 128;
constexpr int kWarpgroupRows = 64;    // of the left factor and of the result of wgmma
constexpr int kRowBytes = 128;        // of a tile in shared memory; more columns are tiles of their own
constexpr int kPatternBytes = 1024;   // 8 rows: where the swizzle repeats, to which tiles are aligned
constexpr int kBytesPerProduct = 32;  // of a row: what one wgmma takes of both factors
constexpr int kCodesPerRegister = 4;  // 8-bit elements
constexpr int kOperandRegisters = 4;  // of a thread, for the left factor of one wgmma
constexpr int kTokensPerGroup = 16;   // of v, within which they are permuted

// Where byte `offset` of a tile, row after row, lies: the 16-byte pieces of a row change places with the row, so that a
// column of 8 rows meets all banks.
WK_HOST_DEVICE constexpr int swizzled(int offset) { return offset ^ (offset >> 3 & 0x70); }

// A factor in shared memory as wgmma is told of it: rows of 128 swizzled bytes along the summed dimension, groups of 8
// rows following each other. `address` may lie kBytesPerProduct * i into the first row: the hardware swizzles what it
// adds to it.
WK_HOST_DEVICE constexpr uint64_t operand_descriptor(uint32_t address) {
  constexpr uint64_t kUnit = 16, kSwizzle128 = uint64_t{1} << 62;
  constexpr uint64_t kLeading = uint64_t{1} << 16;  // not read for swizzled rows that are summed over
  return (address & 0x3ffff) / kUnit | kLeading | kPatternBytes / kUnit << 32 | kSwizzle128;
}

// Element `index` of a thread's share of the result, 64 rows by any number of columns.
WK_HOST_DEVICE constexpr int result_row(int thread, int index) {
  return thread / 32 * 16 + thread % 32 / 4 + index / 2 % 2 * 8;
}
WK_HOST_DEVICE constexpr int result_column(int thread, int index) { return index / 4 * 8 + thread % 4 * 2 + index % 2; }

// Byte `byte` of register `reg` of a thread's share of the left factor, 64 rows by 32 8-bit columns.
WK_HOST_DEVICE constexpr int operand_row(int thread, int reg) {
  return thread / 32 * 16 + thread % 32 / 4 + reg % 2 * 8;
}
WK_HOST_DEVICE constexpr int operand_column(int thread, int reg, int byte) {
  return reg / 2 * 16 + thread % 4 * 4 + byte;
}

// The token of v at a position of each 16, as quantize_values permutes them.
WK_HOST_DEVICE constexpr int token_at(int position) { return position / 4 * 2 + position % 2 + position / 2 % 2 * 8; }

// Which element of its share of a result a thread puts there, to make it the left factor of the next product over
// permuted tokens: `product` counts steps of 32 columns. No element changes threads.
WK_HOST_DEVICE constexpr int operand_source(int product, int reg, int byte) {
  return product * 16 + reg / 2 * 8 + byte / 2 * 4 + reg % 2 * 2 + byte % 2;
}

}  // namespace wk::layout
