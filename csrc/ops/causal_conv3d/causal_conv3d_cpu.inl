// SPDX-License-Identifier: Apache-2.0
// A block of tiles of some frames: their rows are gathered from x and from the frames before it where those lie,
// without a copy of either with the other or with a border; multiplied, plane by plane; and joined to outputs.
#include "common/cpu/product.h"
#include "ops/causal_conv3d/causal_conv3d_cpu.h"

namespace wk {
namespace WK_ISA {
namespace {

// ---- Winograd's transforms, of vectors side by side ----

// Four numbers in steps, for the products of F(2, 3).
WK_INLINE void transform_input(Floats *d, int64_t step) {
  const Floats a = d[0], b = d[step], c = d[2 * step], e = d[3 * step];
  d[0] = a - c;
  d[step] = b + c;
  d[2 * step] = c - b;
  d[3 * step] = b - e;
}

// Three taps to four.
WK_INLINE void transform_taps(Floats *to, int64_t to_step, const Floats *g, int64_t step) {
  const Floats half = splat(0.5f), sides = (g[0] + g[2 * step]) * half, centre = g[step] * half;
  to[0] = g[0];
  to[to_step] = sides + centre;
  to[2 * to_step] = sides - centre;
  to[3 * to_step] = g[2 * step];
}

// Four products to two outputs.
WK_INLINE void transform_output(Floats *to, int64_t to_step, const Floats *m, int64_t step) {
  to[0] = m[0] + m[step] + m[2 * step];
  to[to_step] = m[step] - m[2 * step] - m[3 * step];
}

// ---- weights ----

// One tap of one input channel: of 16 output channels from `first` on, those past the last zero.
template <class T>
void read_tap(T *to, const CausalConv3d &call, const ConvWeight &weight, int64_t first, int64_t at) {
  const T *from = reinterpret_cast<const T *>(weight.data) + first * weight.stride[0] + at;
  const int64_t left = call.num_out - first, count = left < kColumns ? left : kColumns;
  for (int64_t o = 0; o < kColumns; ++o) to[o] = o < count ? from[o * weight.stride[0]] : T{};
}

// 9 taps to a line in each plane, `plane_stride` floats apart.
template <class T>
void transform_lines(float *lines, int64_t plane_stride, const T (*taps)[kColumns]) {
  for (int64_t i = 0; i < kColumns; i += kLanes) {
    Floats g[9], by_row[12], planes[kWinogradPlanes];
    for (int k = 0; k < 9; ++k) g[k] = load(taps[k] + i, Whole{});
    for (int x = 0; x < 3; ++x) transform_taps(by_row + x, 3, g + x, 3);
    for (int y = 0; y < 4; ++y) transform_taps(planes + 4 * y, 1, by_row + 3 * y, 1);
    for (int k = 0; k < kWinogradPlanes; ++k) store(lines + k * plane_stride + i, planes[k], Whole{});
  }
}

template <class T>
void pack_group(const CausalConv3d &call, const ConvWeight &weight, float *packed, int64_t group) {
  const int64_t num_taps = call.kernel.y * call.kernel.x, group_floats = call.kernel.t * call.depth * kColumns;
  for (int64_t t = 0; t < call.kernel.t; ++t) {
    for (int64_t channel = 0; channel < call.num_in; ++channel) {
      float *lines = packed + group * group_floats + (t * call.depth + channel) * kColumns;
      alignas(64) T taps[9][kColumns];
      for (int64_t k = 0; k < num_taps; ++k) {
        T *tap = taps[call.is_winograd ? k : 0];
        read_tap(tap, call, weight, group * kColumns,
                 channel * weight.stride[1] + t * weight.stride[2] + k / call.kernel.x * weight.stride[3] +
                     k % call.kernel.x * weight.stride[4]);
        if (call.is_winograd) continue;
        for (int64_t i = 0; i < kColumns; i += kLanes) {
          store(lines + k * call.num_in * kColumns + i, load(tap + i, Whole{}), Whole{});
        }
      }
      if (call.is_winograd) transform_lines(lines, call.num_groups * group_floats, taps);
    }
  }
}

void pack(const CausalConv3d &call, const ConvWeight &weight, float *packed, int64_t begin, int64_t end) {
  with_dtype(call.dtype, [&](auto type) {
    for (int64_t group = begin; group < end; ++group) pack_group<decltype(type)>(call, weight, packed, group);
  });
}

// ---- rows ----

// A block of the output, and its memory.
struct Block3d {
  int64_t sample;
  int64_t first_frame, num_frames;
  int64_t first_tile, num_tiles;
  float *rows;      // [num_planes][frames_seen][block_tiles][depth]
  float *products;  // [num_planes][block_frames][block_tiles][16 * num_groups]
};

// Frame `frame` of those before x and then x itself. Null: zeros.
template <class T>
const T *frame_at(const CausalConv3d &call, int64_t sample, int64_t frame) {
  const int64_t history = block_history(call);
  const Video &video = frame < history ? call.cache : call.x;
  if (!video.data) return nullptr;
  const int64_t at = frame < history ? frame : frame - history;
  return reinterpret_cast<const T *>(video.data) + sample * video.batch_stride + at * video.frame_stride;
}

// The pixel's channels, or `zeros` outside of the frame.
template <class T>
WK_INLINE const T *pixel_at(const CausalConv3d &call, const Video &video, const T *frame, int64_t row, int64_t column,
                            const T *zeros) {
  const bool is_inside = row >= 0 && row < call.rows && column >= 0 && column < call.columns;
  return is_inside ? frame + row * video.row_stride + column * video.pixel_stride : zeros;
}

template <class T>
void gather_tile(float *to, int64_t plane_stride, const CausalConv3d &call, const Video &video, const T *frame,
                 int64_t tile, const T *zeros) {
  const int64_t row = tile / call.tile_columns * 2 - call.top, column = tile % call.tile_columns * 2 - call.left;
  const T *pixels[kWinogradPlanes];
  for (int64_t k = 0; k < kWinogradPlanes; ++k) {
    pixels[k] = pixel_at(call, video, frame, row + k / 4, column + k % 4, zeros);
  }
  for_each_vector(call.num_in, [&](int64_t i, auto extent) {
    Floats d[kWinogradPlanes];
#pragma GCC unroll 16
    for (int k = 0; k < kWinogradPlanes; ++k) d[k] = load(pixels[k] + i, extent);
#pragma GCC unroll 4
    for (int x = 0; x < 4; ++x) transform_input(d + x, 4);
#pragma GCC unroll 4
    for (int y = 0; y < 4; ++y) transform_input(d + 4 * y, 1);
#pragma GCC unroll 16
    for (int k = 0; k < kWinogradPlanes; ++k) store(to + k * plane_stride + i, d[k], extent);
  });
}

template <class T>
void gather_taps(float *to, const CausalConv3d &call, const Video &video, const T *frame, int64_t tile,
                 const T *zeros) {
  const int64_t row = tile / call.tile_columns * call.stride.y - call.top;
  const int64_t column = tile % call.tile_columns * call.stride.x - call.left;
  for (int64_t y = 0; y < call.kernel.y; ++y) {
    for (int64_t x = 0; x < call.kernel.x; ++x, to += call.num_in) {
      const T *pixel = pixel_at(call, video, frame, row + y, column + x, zeros);
      for_each_vector(call.num_in, [&](int64_t i, auto extent) { store(to + i, load(pixel + i, extent), extent); });
    }
  }
}

// The rows of the frames that the block sees; of frames that are zeros none.
template <class T>
void gather(const CausalConv3d &call, const Block3d &block, const T *zeros) {
  const int64_t first = block.first_frame * call.stride.t,
                count = block.num_frames * call.stride.t + block_history(call);
  const int64_t plane_stride = frames_seen(call) * call.block_tiles * call.depth;
  for (int64_t k = 0; k < count; ++k) {
    const T *frame = frame_at<T>(call, block.sample, first + k);
    if (!frame) continue;
    const Video &video = first + k < block_history(call) ? call.cache : call.x;
    float *to = block.rows + k * call.block_tiles * call.depth;
    for (int64_t i = 0; i < block.num_tiles; ++i, to += call.depth) {
      if (call.is_winograd) {
        gather_tile(to, plane_stride, call, video, frame, block.first_tile + i, zeros);
      } else {
        gather_taps(to, call, video, frame, block.first_tile + i, zeros);
      }
    }
  }
}

// ---- products ----

// Of one plane and frame of the kernel: those of the first that is not all zeros are the sums' beginning.
void multiply_frame(const CausalConv3d &call, const Block3d &block, const float *packed, const float *ones,
                    int64_t plane, int64_t frame, int64_t num_frames, int64_t t, bool is_first) {
  const int64_t row_step = call.block_tiles * call.depth, width = call.num_groups * kColumns;
  Product<float> of;
  of.rows = block.rows + (plane * frames_seen(call) + frame * call.stride.t + t) * row_step;
  of.stride = call.depth;
  of.groups = packed + (plane * call.num_groups * call.kernel.t + t) * call.depth * kColumns;
  of.group_stride = call.kernel.t * call.depth * kColumns;
  of.num_words = call.depth;
  of.sums = block.products + (plane * call.block_frames + frame) * call.block_tiles * width;
  of.sums_stride = width;
  of.decays = is_first ? nullptr : ones;
  const int64_t num_rows =
      num_frames > 1 ? num_frames * call.block_tiles : (block.num_tiles + kTileStep - 1) / kTileStep * kTileStep;
  multiply<Side::kByRow>(of, num_rows, call.num_groups);
}

void multiply_block(const CausalConv3d &call, const Block3d &block, const float *packed, const float *ones) {
  // Frames of zeros before x, seen by the block's first outputs.
  const int64_t num_zeros = call.cache.data ? 0 : block_history(call) - block.first_frame * call.stride.t;
  for (int64_t plane = 0; plane < call.num_planes; ++plane) {
    if (num_zeros <= 0 && call.stride.t == 1) {  // rows of all frames follow each other
      for (int64_t t = 0; t < call.kernel.t; ++t) {
        multiply_frame(call, block, packed, ones, plane, 0, block.num_frames, t, t == 0);
      }
      continue;
    }
    for (int64_t frame = 0; frame < block.num_frames; ++frame) {
      const int64_t skipped = num_zeros - frame * call.stride.t, start = skipped > 0 ? skipped : 0;
      for (int64_t t = start; t < call.kernel.t; ++t) {
        multiply_frame(call, block, packed, ones, plane, frame, 1, t, t == start);
      }
    }
  }
}

// ---- outputs ----

template <class T>
void join_tile(T *out, const CausalConv3d &call, const float *products, int64_t plane_stride, int64_t tile) {
  const int64_t row = tile / call.tile_columns * 2, column = tile % call.tile_columns * 2;
  const bool has_row = row + 1 < call.out_rows, has_column = column + 1 < call.out_columns;
  const int64_t down = call.out.row_stride, across = call.out.pixel_stride;
  out += row * down + column * across;
  for_each_vector(call.num_out, [&](int64_t i, auto extent) {
    Floats m[kWinogradPlanes], by_row[8], y[4];
#pragma GCC unroll 16
    for (int k = 0; k < kWinogradPlanes; ++k) m[k] = load(products + k * plane_stride + i, extent);
#pragma GCC unroll 4
    for (int x = 0; x < 4; ++x) transform_output(by_row + x, 4, m + x, 4);
    transform_output(y, 1, by_row, 1);
    transform_output(y + 2, 1, by_row + 4, 1);
    const Floats bias = load(call.bias + i, extent);
    store(out + i, y[0] + bias, extent);
    if (has_column) store(out + across + i, y[1] + bias, extent);
    if (has_row) store(out + down + i, y[2] + bias, extent);
    if (has_row && has_column) store(out + down + across + i, y[3] + bias, extent);
  });
}

template <class T>
void join(const CausalConv3d &call, const Block3d &block) {
  const int64_t width = call.num_groups * kColumns, frame_stride = call.block_tiles * width;
  for (int64_t frame = 0; frame < block.num_frames; ++frame) {
    T *out = reinterpret_cast<T *>(call.out.data) + block.sample * call.out.batch_stride +
             (block.first_frame + frame) * call.out.frame_stride;
    const float *products = block.products + frame * frame_stride;
    for (int64_t i = 0; i < block.num_tiles; ++i, products += width) {
      const int64_t tile = block.first_tile + i;
      if (call.is_winograd) {
        join_tile(out, call, products, call.block_frames * frame_stride, tile);
        continue;
      }
      T *to = out + tile / call.tile_columns * call.out.row_stride + tile % call.tile_columns * call.out.pixel_stride;
      for_each_vector(call.num_out, [&](int64_t k, auto extent) {
        store(to + k, load(products + k, extent) + load(call.bias + k, extent), extent);
      });
    }
  }
}

// ---- blocks ----

Block3d block_at(const CausalConv3d &call, int64_t index, float *memory) {
  const int64_t num_tiles = call.tile_rows * call.tile_columns;
  const int64_t tile_blocks = (num_tiles + call.block_tiles - 1) / call.block_tiles;
  const int64_t frame_blocks = (call.out_frames + call.block_frames - 1) / call.block_frames;
  const auto least = [](int64_t a, int64_t b) { return a < b ? a : b; };
  Block3d block;
  block.first_tile = index % tile_blocks * call.block_tiles;
  block.num_tiles = least(call.block_tiles, num_tiles - block.first_tile);
  block.first_frame = index / tile_blocks % frame_blocks * call.block_frames;
  block.num_frames = least(call.block_frames, call.out_frames - block.first_frame);
  block.sample = index / tile_blocks / frame_blocks;
  block.rows = memory;
  block.products = memory + row_floats(call);
  return block;
}

void forward(const CausalConv3d &call, const float *packed, float *memory, const float *ones, const void *zeros,
             int64_t begin, int64_t end) {
  with_dtype(call.dtype, [&](auto type) {
    using T = decltype(type);
    for (int64_t index = begin; index < end; ++index) {
      const Block3d block = block_at(call, index, memory);
      gather(call, block, static_cast<const T *>(zeros));
      multiply_block(call, block, packed, ones);
      join<T>(call, block);
    }
  });
}

}  // namespace

extern const CausalConv3dKernels causal_conv3d_kernels = {pack, forward};

}  // namespace WK_ISA
}  // namespace wk
