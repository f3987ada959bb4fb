// SPDX-License-Identifier: Apache-2.0
// common/cuda/layout.h, every index of it, and the way of a tile of attention through it on an emulated Hopper.
#include "common/cuda/layout.h"

#include "hopper_emulator.h"
#include "support.h"

using namespace wk::layout;
using namespace emulator;

namespace {

constexpr int kKeys = 128, kWidth = 128, kTileBytes = kKeys * kRowBytes;

// One number after the other for what must be met once each.
template <class Visit>
void expect_each_once(int count, const Visit &visit) {
  std::vector<int> met(static_cast<size_t>(count), 0);
  visit([&](int place) {
    EXPECT(place >= 0 && place < count);
    ++met[static_cast<size_t>(place)];
  });
  for (int times : met) EXPECT(times == 1);
}

void test_swizzle() {
  expect_each_once(kTileBytes, [](auto met) {
    for (int offset = 0; offset < kTileBytes; ++offset) met(swizzled(offset));
  });
  Matrix<int8_t> box(kKeys, kRowBytes);
  for (size_t i = 0; i < box.values.size(); ++i) box.values[i] = static_cast<int8_t>(i * 131 % 251);
  Shared shared(kTileBytes);
  load_box(shared, 0, box);
  for (int offset = 0; offset < kTileBytes; ++offset) {
    EXPECT(shared.bytes[static_cast<size_t>(swizzled(offset))] == box.values[static_cast<size_t>(offset)]);
    EXPECT(swizzled(swizzled(offset)) == offset && swizzled(offset) / kRowBytes == offset / kRowBytes);
  }
  // A column of 8 rows meets each group of four banks once.
  for (int piece = 0; piece < 8; ++piece) {
    expect_each_once(8, [piece](auto met) {
      for (int row = 0; row < 8; ++row) met(swizzled(row * kRowBytes + piece * 16) % kRowBytes / 16);
    });
  }
}

void test_descriptor() {
  Matrix<int8_t> box(kKeys, kRowBytes);
  for (size_t i = 0; i < box.values.size(); ++i) box.values[i] = static_cast<int8_t>(i * 37 % 241);
  for (int tile = 0; tile < 12; ++tile) {  // past 64 KiB, where addresses need their 17th bit
    Shared shared((tile + 1) * kTileBytes);
    load_box(shared, tile * kTileBytes, box);
    for (int step = 0; step < kRowBytes / kBytesPerProduct; ++step) {
      const uint64_t descriptor =
          operand_descriptor(static_cast<uint32_t>(tile * kTileBytes + step * kBytesPerProduct));
      for (int row = 0; row < kKeys; ++row) {
        for (int byte = 0; byte < kBytesPerProduct; ++byte) {
          EXPECT(read_factor(shared, descriptor, row, byte) == box.at(row, step * kBytesPerProduct + byte));
        }
      }
    }
  }
}

void test_registers() {
  constexpr int kElements = kWarpgroupRows * kKeys / kWarpgroupThreads;
  expect_each_once(kWarpgroupRows * kKeys, [](auto met) {
    for (int thread = 0; thread < kWarpgroupThreads; ++thread) {
      for (int i = 0; i < kElements; ++i) met(result_row(thread, i) * kKeys + result_column(thread, i));
    }
  });
  Result result(kThreads);
  for (int row = 0; row < kRows; ++row) {
    for (int column = 0; column < kKeys; ++column) element(result, row, column) = row * kKeys + column;
  }
  Operand operand(kThreads);
  for (int thread = 0; thread < kWarpgroupThreads; ++thread) {
    for (int i = 0; i < kElements; ++i) {
      EXPECT(result[static_cast<size_t>(thread)][static_cast<size_t>(i)] ==
             result_row(thread, i) * kKeys + result_column(thread, i));
    }
    for (int i = 0; i < kOperandRegisters * kCodesPerRegister; ++i) {
      const int row = operand_row(thread, i / 4), column = operand_column(thread, i / 4, i % 4);
      operand[static_cast<size_t>(thread)][static_cast<size_t>(i)] = static_cast<int8_t>((row * 3 + column) % 100);
    }
  }
  for (int row = 0; row < kRows; ++row) {
    for (int column = 0; column < kDepth; ++column) EXPECT(element(operand, row, column) == (row * 3 + column) % 100);
  }
}

// A thread's elements of a result are its bytes of the next left factor, over tokens in the order of v.
void test_permutation() {
  expect_each_once(kTokensPerGroup, [](auto met) {
    for (int position = 0; position < kTokensPerGroup; ++position) met(token_at(position));
  });
  constexpr int kOrder[] = {0, 1, 8, 9, 2, 3, 10, 11, 4, 5, 12, 13, 6, 7, 14, 15};  // as wan_kernels.h states it
  for (int position = 0; position < kTokensPerGroup; ++position) EXPECT(token_at(position) == kOrder[position]);
  for (int thread = 0; thread < kWarpgroupThreads; ++thread) {
    for (int i = 0; i < kKeys / kBytesPerProduct * 16; ++i) {
      const int product = i / 16, reg = i / 4 % 4, byte = i % 4, source = operand_source(product, reg, byte);
      const int position = product * kBytesPerProduct + operand_column(thread, reg, byte);
      EXPECT(result_row(thread, source) == operand_row(thread, reg));
      EXPECT(result_column(thread, source) == position / 16 * 16 + token_at(position % 16));
    }
  }
}

struct Mistakes {
  bool is_unswizzled = false, is_unpermuted = false;
};

int8_t code(int row, int column, int seed) { return static_cast<int8_t>((row * 31 + column * 17 + seed) % 23 - 11); }
int8_t weight_of(int32_t score) { return static_cast<int8_t>(score % 5); }

// f(q k^T) v of a tile by the steps of the kernel, f an integer for an integer.
Matrix<int32_t> by_the_steps_of_the_kernel(const Mistakes &mistakes) {
  constexpr int kQueriesAt = 0, kKeysAt = kRows * kRowBytes, kValuesAt = kKeysAt + kTileBytes;
  Matrix<int8_t> q(kRows, kWidth), k(kKeys, kWidth), v(kWidth, kKeys);
  for (int row = 0; row < kKeys; ++row) {
    for (int i = 0; i < kWidth; ++i) {
      if (row < kRows) q.at(row, i) = code(row, i, 1);
      k.at(row, i) = code(row, i, 2);
      const int token = mistakes.is_unpermuted ? i : i / 16 * 16 + token_at(i % 16);
      v.at(row, i) = code(token, row, 3);
    }
  }
  Shared shared(kValuesAt + kTileBytes);
  load_box(shared, kQueriesAt, q, !mistakes.is_unswizzled);
  load_box(shared, kKeysAt, k);
  load_box(shared, kValuesAt, v);
  Result scores(kThreads), products(kThreads);
  for (int step = 0; step < kWidth / kBytesPerProduct; ++step) {
    const uint64_t left = operand_descriptor(static_cast<uint32_t>(kQueriesAt + step * kBytesPerProduct));
    multiply(
        scores, [&](int row, int i) { return read_factor(shared, left, row, i); }, shared,
        operand_descriptor(static_cast<uint32_t>(kKeysAt + step * kBytesPerProduct)));
  }
  for (int step = 0; step < kKeys / kBytesPerProduct; ++step) {
    Operand weights(kThreads);
    for (size_t thread = 0; thread < kThreads; ++thread) {
      for (int i = 0; i < 16; ++i) {
        const int source = operand_source(step, i / 4, i % 4);
        weights[thread][static_cast<size_t>(i)] = weight_of(scores[thread][static_cast<size_t>(source)]);
      }
    }
    multiply(
        products, [&](int row, int i) { return element(weights, row, i); }, shared,
        operand_descriptor(static_cast<uint32_t>(kValuesAt + step * kBytesPerProduct)));
  }
  Matrix<int32_t> out(kRows, kWidth);
  for (int row = 0; row < kRows; ++row) {
    for (int i = 0; i < kWidth; ++i) out.at(row, i) = element(products, row, i);
  }
  return out;
}

Matrix<int32_t> by_definition() {
  Matrix<int32_t> out(kRows, kWidth);
  for (int row = 0; row < kRows; ++row) {
    for (int key = 0; key < kKeys; ++key) {
      int32_t score = 0;
      for (int i = 0; i < kWidth; ++i) score += code(row, i, 1) * code(key, i, 2);
      for (int i = 0; i < kWidth; ++i) out.at(row, i) += weight_of(score) * code(key, i, 3);
    }
  }
  return out;
}

void test_tile_of_attention() {
  const Matrix<int32_t> wanted = by_definition();
  EXPECT(by_the_steps_of_the_kernel({}).values == wanted.values);
  Mistakes unswizzled, unpermuted;
  unswizzled.is_unswizzled = unpermuted.is_unpermuted = true;
  EXPECT(by_the_steps_of_the_kernel(unswizzled).values != wanted.values);
  EXPECT(by_the_steps_of_the_kernel(unpermuted).values != wanted.values);
}

}  // namespace

int main() {
  test_swizzle();
  test_descriptor();
  test_registers();
  test_permutation();
  test_tile_of_attention();
  return 0;
}
