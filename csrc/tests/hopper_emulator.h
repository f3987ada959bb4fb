// SPDX-License-Identifier: Apache-2.0
// What Hopper's copy engine and tensor cores do with places, after the PTX ISA and apart from common/cuda/layout.h,
// which is held against it: only integers are multiplied.
#pragma once
#include <array>
#include <cstddef>
#include <cstdint>
#include <vector>

namespace emulator {

constexpr int kThreads = 128, kRows = 64, kColumns = 128, kDepth = 32;

// [rows][columns], row after row.
template <class T>
struct Matrix {
  Matrix(int num_rows, int num_columns)
      : rows(num_rows), columns(num_columns), values(static_cast<size_t>(num_rows * num_columns)) {}
  T &at(int row, int column) { return values[static_cast<size_t>(row * columns + column)]; }
  T at(int row, int column) const { return values[static_cast<size_t>(row * columns + column)]; }
  int rows, columns;
  std::vector<T> values;
};

struct Shared {
  explicit Shared(int num_bytes) : bytes(static_cast<size_t>(num_bytes)) {}
  std::vector<int8_t> bytes;
};

// "Tensor swizzling modes", 128 bytes: of 8 rows of 8 pieces, piece p of row r lies where piece p xor r would.
inline void load_box(Shared &shared, int to, const Matrix<int8_t> &box, bool is_swizzled = true) {
  for (int row = 0; row < box.rows; ++row) {
    for (int byte = 0; byte < 128; ++byte) {
      const int piece = is_swizzled ? byte / 16 ^ row % 8 : byte / 16;
      shared.bytes[static_cast<size_t>(to + row * 128 + piece * 16 + byte % 16)] = box.at(row, byte);
    }
  }
}

// "Matrix descriptor format": start in bits 0-13, stride between 8 rows in 32-45, both in units of 16 bytes; swizzle in
// 62-63, where 1 means that bits 4-6 of an address are xored with its bits 7-9.
inline int8_t read_factor(const Shared &shared, uint64_t descriptor, int row, int byte) {
  const int start = static_cast<int>(descriptor & 0x3fff) * 16,
            stride = static_cast<int>(descriptor >> 32 & 0x3fff) * 16;
  int address = start + row / 8 * stride + row % 8 * 128 + byte;
  if (descriptor >> 62 == 1) address ^= (address / 128 % 8) * 16;
  return shared.bytes[static_cast<size_t>(address)];
}

// The registers of all threads.
using Result = std::vector<std::array<int32_t, kRows * kColumns / kThreads>>;
using Operand = std::vector<std::array<int8_t, kRows * kDepth / kThreads>>;

// "Register fragments for wgmma.m64nNkK", D.
inline int32_t &element(Result &result, int row, int column) {
  const int thread = row / 16 * 32 + row % 8 * 4 + column % 8 / 2;
  return result[static_cast<size_t>(thread)][static_cast<size_t>(column / 8 * 4 + row % 16 / 8 * 2 + column % 2)];
}

// The same, A of 8-bit elements, four of them to a register.
inline int8_t element(const Operand &operand, int row, int column) {
  const int thread = row / 16 * 32 + row % 8 * 4 + column % 16 / 4;
  const int reg = column / 16 * 2 + row % 16 / 8;
  return operand[static_cast<size_t>(thread)][static_cast<size_t>(reg * 4 + column % 4)];
}

// result += left * right^T over 32 bytes of both.
template <class Left>
void multiply(Result &result, const Left &left, const Shared &shared, uint64_t right) {
  for (int row = 0; row < kRows; ++row) {
    for (int column = 0; column < kColumns; ++column) {
      int32_t &sum = element(result, row, column);
      for (int i = 0; i < kDepth; ++i) sum += left(row, i) * read_factor(shared, right, column, i);
    }
  }
}

}  // namespace emulator
