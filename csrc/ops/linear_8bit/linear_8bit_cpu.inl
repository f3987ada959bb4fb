// SPDX-License-Identifier: Apache-2.0
// Tiles of rows by groups of 16 columns. The sums of a few hundred columns wait in the cache until their rows are
// finished from there. Where products want x shifted, it is in the copy of its rows that is made for each block.
#include "common/cpu/codes.h"
#include "common/cpu/dot.h"
#include "common/cpu/exp.h"
#include "ops/linear_8bit/linear_8bit_cpu.h"

namespace wk {
namespace WK_ISA {
namespace {

#if WK_X86_INTRINSICS && defined(__AVX512VNNI__)
constexpr int kRowsAtOnce = 8, kGroupsAtOnce = 3;
#elif WK_X86_INTRINSICS && defined(__AVX2__)
constexpr int kRowsAtOnce = 2, kGroupsAtOnce = 1;
#else
constexpr int kRowsAtOnce = 1, kGroupsAtOnce = 1;
#endif

// Sums of `num_rows` rows by groups [begin, end) of columns.
void multiply_columns(const Left *x, int64_t num_rows, const Linear8bit &call, int64_t begin, int64_t end,
                      int32_t *result) {
  const int64_t row_bytes = call.num_quads * kQuad, group_bytes = call.num_quads * kQuadBytes;
  const Product<Left> product = {x,      row_bytes,    call.weight + begin * group_bytes, group_bytes, call.num_quads,
                                 result, kBlockColumns};
  multiply<kRowsAtOnce, kGroupsAtOnce>(product, num_rows, end - begin);
}

// The block's rows with the shift, one after the other, padded with what the weight's zeros meet.
void shift_rows(const Rows &x, int64_t begin, int64_t end, int64_t row_bytes, Left *result) {
  for (int64_t row = begin; row < end; ++row, result += row_bytes) {
    const int8_t *from = row_at<const int8_t>(x, row);
    for (int64_t k = 0; k < x.width; ++k) result[k] = static_cast<Left>(from[k] + kShift);
    for (int64_t k = x.width; k < row_bytes; ++k) result[k] = 0;
  }
}

void offsets(const Linear8bit &call, int64_t begin, int64_t end, int32_t *result) {
  for (int64_t group = begin; group < end; ++group) {
    const int8_t *weight = call.weight + group * call.num_quads * kQuadBytes;
    int32_t *sums = result + group * kGroupColumns;
    for (int64_t c = 0; c < kGroupColumns; ++c) sums[c] = 0;
    for (int64_t quad = 0; quad < call.num_quads && kShift; ++quad, weight += kQuadBytes) {
      for (int64_t c = 0; c < kGroupColumns; ++c) {
        const int8_t *four = weight + c * kQuad;
        sums[c] += kShift * (four[0] + four[1] + four[2] + four[3]);
      }
    }
  }
}

// x / 2 * (1 + tanh(sqrt(2 / pi) * (x + 0.044715 x^3))), which is x * sigmoid of twice that argument.
WK_INLINE Floats gelu(Floats x) {
  return x * sigmoid<float>(x * (splat(1.59576912f) + splat(0.0713548163f) * (x * x)));
}

// Calls take(i, value, extent) with each finished vector of a row's columns [first, last); i counts from 0.
template <class T, class Take>
WK_INLINE void each_result(const Linear8bit &call, int64_t row, int64_t first, int64_t last, const int32_t *sums, T,
                           const Take &take) {
  const float *weight_scale = call.weight_scale + first, *bias = call.bias + first;
  const int32_t *shift = call.offsets + first;
  const Floats x_scale = splat(call.x_scale[row]);
  const int64_t width = last - first;
  const auto product = [&](int64_t i, auto extent) {
    return load_sums(sums + i, shift + i, extent) * x_scale * load(weight_scale + i, extent) + load(bias + i, extent);
  };
  if (call.apply_gelu) {
    for_each_vector(width, [&](int64_t i, auto extent) { take(i, gelu(product(i, extent)), extent); });
  } else if (!call.residual.data) {
    for_each_vector(width, [&](int64_t i, auto extent) { take(i, product(i, extent), extent); });
  } else {
    const T *residual = row_at<const T>(call.residual, row) + first;
    if (!call.gate.data) {
      for_each_vector(
          width, [&](int64_t i, auto extent) { take(i, load(residual + i, extent) + product(i, extent), extent); });
      return;
    }
    const int64_t sample = row / call.length;
    const int64_t table = sample * call.index.num_rows + lookup(call.index, sample, row % call.length);
    const float *gate = row_at<const float>(call.gate, table) + first;
    for_each_vector(width, [&](int64_t i, auto extent) {
      take(i, load(residual + i, extent) + product(i, extent) * load(gate + i, extent), extent);
    });
  }
}

// Part of a row that is to become codes: kept until its largest size is known, which is returned.
float finish_values(const Linear8bit &call, int64_t row, int64_t first, int64_t last, const int32_t *sums,
                    float *values) {
  Words sizes = {};
  each_result(call, row, first, last, sums, float{}, [&](int64_t i, Floats value, auto extent) {
    store(values + first + i, value, extent);
    sizes = larger(sizes, size_bits(kept(value, extent)));
  });
  return largest(sizes);
}

void finish_floats(const Linear8bit &call, int64_t row, int64_t first, int64_t last, const int32_t *sums) {
  with_dtype(call.out.dtype, [&](auto type) {
    auto *out = row_at<decltype(type)>(call.out, row) + first;
    each_result(call, row, first, last, sums, type,
                [&](int64_t i, Floats value, auto extent) { store(out + i, value, extent); });
  });
}

void finish_codes(const Linear8bit &call, int64_t row, const float *values, float size) {
  with_codes(call.out.dtype, [&](auto code) {
    const float scale = scale_for(size, limit_of(code));
    call.out_scale[row] = scale;
    encode_row(row_at<decltype(code)>(call.out, row), values, scale, call.out.width, false);
  });
}

void forward(const Linear8bit &call, int64_t begin, int64_t end, const Linear8bitScratch &scratch) {
  const int64_t num_columns = call.out.width;
  float sizes[kMaxBlockRows] = {};
  Left *const rows = static_cast<Left *>(scratch.rows);
  shift_rows(call.x, begin, end, call.num_quads * kQuad, rows);
  for (int64_t first = 0; first < num_columns; first += kBlockColumns) {
    const int64_t last = first + kBlockColumns < num_columns ? first + kBlockColumns : num_columns;
    multiply_columns(rows, end - begin, call, first / kGroupColumns, (last + kGroupColumns - 1) / kGroupColumns,
                     scratch.sums);
    for (int64_t row = begin; row < end; ++row) {
      const int32_t *sums = scratch.sums + (row - begin) * kBlockColumns;
      if (!call.out_scale) {
        finish_floats(call, row, first, last, sums);
        continue;
      }
      const float size = finish_values(call, row, first, last, sums, scratch.values + (row - begin) * num_columns);
      float &largest_yet = sizes[row - begin];
      if (!(size <= largest_yet) && largest_yet == largest_yet) largest_yet = size;  // a NaN enters and stays
    }
  }
  for (int64_t row = begin; row < end && call.out_scale; ++row) {
    finish_codes(call, row, scratch.values + (row - begin) * num_columns, sizes[row - begin]);
  }
}

}  // namespace

extern const Linear8bitKernels linear_8bit_kernels = {offsets, forward};

}  // namespace WK_ISA
}  // namespace wk
