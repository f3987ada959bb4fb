// SPDX-License-Identifier: Apache-2.0
// A block of tiles of some frames: their rows are gathered from x and from the frames before it where those lie,
// without a copy of either with the other or with a border; multiplied, plane by plane; and joined to outputs.
#include "common/cpu/channel_norm.h"
#include "common/cpu/product.h"
#include "ops/causal_conv3d/causal_conv3d_cpu.h"

namespace wk {
namespace WK_ISA {
namespace {

// ---- Winograd's transforms of one side, of vectors `step` apart ----

// F(2, 3) and F(4, 3): m outputs from m + 2 products.
template <int m>
struct Winograd;

template <>
struct Winograd<2> {
  static WK_INLINE void input(Floats *d, int64_t step) {
    const Floats a = d[0], b = d[step], c = d[2 * step], e = d[3 * step];
    d[0] = a - c;
    d[step] = b + c;
    d[2 * step] = c - b;
    d[3 * step] = b - e;
  }
  static WK_INLINE void taps(Floats *to, int64_t to_step, const Floats *g, int64_t step) {
    const Floats half = splat(0.5f), sides = (g[0] + g[2 * step]) * half, centre = g[step] * half;
    to[0] = g[0];
    to[to_step] = sides + centre;
    to[2 * to_step] = sides - centre;
    to[3 * to_step] = g[2 * step];
  }
  static WK_INLINE void output(Floats *to, int64_t to_step, const Floats *m, int64_t step) {
    to[0] = m[0] + m[step] + m[2 * step];
    to[to_step] = m[step] - m[2 * step] - m[3 * step];
  }
};

template <>
struct Winograd<4> {
  static WK_INLINE void input(Floats *d, int64_t step) {
    const Floats two = splat(2.0f), four = splat(4.0f), five = splat(5.0f);
    const Floats d0 = d[0], d1 = d[step], d2 = d[2 * step], d3 = d[3 * step], d4 = d[4 * step], d5 = d[5 * step];
    const Floats even = d4 - four * d2, odd = d3 - four * d1, near = d4 - d2, twice = two * (d3 - d1);
    d[0] = four * d0 - five * d2 + d4;
    d[step] = even + odd;
    d[2 * step] = even - odd;
    d[3 * step] = near + twice;
    d[4 * step] = near - twice;
    d[5 * step] = four * d1 - five * d3 + d5;
  }
  static WK_INLINE void taps(Floats *to, int64_t to_step, const Floats *g, int64_t step) {
    const Floats sixth = splat(1.0f / 6.0f), g0 = g[0], g1 = g[step], g2 = g[2 * step];
    const Floats sides = (g0 + g2) * -sixth, centre = g1 * -sixth;
    const Floats far = g0 * splat(1.0f / 24.0f) + g2 * sixth, middle = g1 * splat(1.0f / 12.0f);
    to[0] = g0 * splat(0.25f);
    to[to_step] = sides + centre;
    to[2 * to_step] = sides - centre;
    to[3 * to_step] = far + middle;
    to[4 * to_step] = far - middle;
    to[5 * to_step] = g2;
  }
  static WK_INLINE void output(Floats *to, int64_t to_step, const Floats *m, int64_t step) {
    const Floats near = m[step] + m[2 * step], far = m[3 * step] + m[4 * step];
    const Floats near_odd = m[step] - m[2 * step], far_odd = m[3 * step] - m[4 * step];
    to[0] = m[0] + near + far;
    to[to_step] = near_odd + splat(2.0f) * far_odd;
    to[2 * to_step] = near + splat(4.0f) * far;
    to[3 * to_step] = near_odd + splat(8.0f) * far_odd + m[5 * step];
  }
};

// ---- factors ----

// Calls body with the type that rows and weights are multiplied in: plain products of bfloat16 are those of pairs where
// AVX512-BF16 can multiply them, everything else is float32.
template <class Body>
WK_INLINE void with_factors(const CausalConv3d &call, const Body &body) {
  if (call.tile_side == 1 && call.depth % 2 == 0) return with_operand(call.dtype, body);
  return body(float{});
}

// ---- weights ----

// One tap of one input channel: of 16 output channels from `first` on, those past the last zero.
template <class T>
void read_tap(T *to, const CausalConv3d &call, const ConvWeight &weight, int64_t first, const Kernel3d &tap,
              int64_t channel) {
  const int64_t *stride = weight.stride;
  const T *from = reinterpret_cast<const T *>(weight.data) + first * stride[0] + channel * stride[1] +
                  tap.t * stride[2] + tap.y * stride[3] + tap.x * stride[4];
  const int64_t left = call.num_out - first, count = left < kColumns ? left : kColumns;
  for (int64_t o = 0; o < kColumns; ++o) to[o] = o < count ? from[o * stride[0]] : T{};
}

// 9 taps to a line in each plane, `plane_stride` floats apart.
template <int m, class T>
void transform_lines(float *lines, int64_t plane_stride, const T (*taps)[kColumns]) {
  constexpr int kSide = m + 2;
  for (int64_t i = 0; i < kColumns; i += kLanes) {
    Floats g[9], by_row[3 * kSide], planes[kSide * kSide];
    for (int k = 0; k < 9; ++k) g[k] = load(taps[k] + i, Whole{});
    for (int x = 0; x < 3; ++x) Winograd<m>::taps(by_row + x, 3, g + x, 3);
    for (int y = 0; y < kSide; ++y) Winograd<m>::taps(planes + kSide * y, 1, by_row + 3 * y, 1);
    for (int k = 0; k < kSide * kSide; ++k) store(lines + k * plane_stride + i, planes[k], Whole{});
  }
}

// Winograd's planes of 16 output channels from 16 * group on.
template <int m, class T>
void pack_planes(const CausalConv3d &call, const ConvWeight &weight, float *packed, int64_t group) {
  const int64_t group_floats = call.kernel.t * call.depth * kColumns;
  for (int64_t t = 0; t < call.kernel.t; ++t) {
    for (int64_t channel = 0; channel < call.num_in; ++channel) {
      alignas(64) T taps[9][kColumns];
      for (int64_t k = 0; k < 9; ++k) read_tap(taps[k], call, weight, group * kColumns, {t, k / 3, k % 3}, channel);
      transform_lines<m>(packed + group * group_floats + (t * call.depth + channel) * kColumns,
                         call.num_groups * group_floats, taps);
    }
  }
}

// One number for each column: number `index` of the products' depth.
void place_line(float *lines, int64_t index, const float *line) {
  __builtin_memcpy(lines + index * kColumns, line, kColumns * sizeof(float));
}
void place_line(bf16 *lines, int64_t index, const bf16 *line) {
  for (int64_t o = 0; o < kColumns; ++o) lines[(index / 2 * kColumns + o) * 2 + index % 2] = line[o];
}

// The taps as they are, as factors of type Factor.
template <class Factor, class T>
void pack_taps(const CausalConv3d &call, const ConvWeight &weight, float *packed, int64_t group) {
  const int64_t num_taps = call.kernel.y * call.kernel.x;
  Factor *lines = reinterpret_cast<Factor *>(packed) + group * call.kernel.t * call.depth * kColumns;
  for (int64_t t = 0; t < call.kernel.t; ++t, lines += call.depth * kColumns) {
    for (int64_t channel = 0; channel < call.num_in; ++channel) {
      for (int64_t k = 0; k < num_taps; ++k) {
        alignas(64) T tap[kColumns];
        alignas(64) Factor line[kColumns];
        read_tap(tap, call, weight, group * kColumns, {t, k / call.kernel.x, k % call.kernel.x}, channel);
        for (int64_t i = 0; i < kColumns; i += kLanes) store(line + i, load(tap + i, Whole{}), Whole{});
        place_line(lines, k * call.num_in + channel, line);
      }
    }
  }
}

void pack(const CausalConv3d &call, const ConvWeight &weight, float *packed, int64_t begin, int64_t end) {
  with_dtype(call.dtype, [&](auto type) {
    using T = decltype(type);
    for (int64_t group = begin; group < end; ++group) {
      if (call.tile_side == 2) pack_planes<2, T>(call, weight, packed, group);
      if (call.tile_side == 4) pack_planes<4, T>(call, weight, packed, group);
      if (call.tile_side > 1) continue;
      with_factors(call, [&](auto factor) { pack_taps<decltype(factor), T>(call, weight, packed, group); });
    }
  });
}

// ---- rows ----

// A block of the output, and its memory.
struct Block3d {
  int64_t sample;
  int64_t first_frame, num_frames;
  int64_t first_tile, num_tiles;
  int64_t first_group, num_groups;
  float *rows;      // [num_planes][frames_seen][block_tiles][depth]
  float *products;  // [num_planes][block_frames][block_tiles][16 * block_groups]
};

// A frame of x or of the ring. Null: zeros.
template <class T>
struct Frame {
  const T *pixels;
  int64_t row_stride, pixel_stride;
};

// Frame `index` of those before x and then of x itself.
template <class T>
Frame<T> frame_at(const CausalConv3d &call, int64_t sample, int64_t index) {
  const int64_t history = block_history(call), in_stream = call.position - history + index;
  const bool is_past = index < history;
  const Video &video = is_past ? call.ring : call.x;
  if (in_stream < 0) return {nullptr, 0, 0};
  const int64_t at = is_past ? in_stream % call.num_slots : index - history;
  const T *pixels = reinterpret_cast<const T *>(video.data) + sample * video.batch_stride + at * video.frame_stride;
  return {pixels, video.row_stride, video.pixel_stride};
}

// A pixel as the convolution sees it: its channels, or what norm and SiLU make of them.
template <class T, bool kNorm>
struct Pixel {
  const T *channels;
  Floats scale;

  template <class Extent>
  WK_INLINE Floats read(int64_t i, Extent extent, const float *norm_weight) const {
    const Floats value = load(channels + i, extent);
    return kNorm ? activate<T, true>(value * scale * load(norm_weight + i, extent)) : value;
  }
};

// Outside of the frame, the one at `zero_pixel`.
template <class T, bool kNorm>
WK_INLINE Pixel<T, kNorm> pixel_at(const CausalConv3d &call, const Frame<T> &frame, int64_t row, int64_t column,
                                   const T *zero_pixel) {
  const bool is_inside = row >= 0 && row < call.rows && column >= 0 && column < call.columns;
  const int64_t bits = call.enlarged_bits;
  if (!is_inside) return {zero_pixel, zeros()};
  const T *channels = frame.pixels + (row >> bits) * frame.row_stride + (column >> bits) * frame.pixel_stride;
  if (!kNorm) return {channels, zeros()};
  return {channels, root_of_count(call.num_in) / row_norm(channels, call.num_in)};
}

template <int m, bool kNorm, class T>
void gather_tile(float *to, int64_t plane_stride, const CausalConv3d &call, const Frame<T> &frame, int64_t tile,
                 const T *zero_pixel) {
  constexpr int kSide = m + 2, kPlanes = kSide * kSide;
  const int64_t row = tile / call.tile_columns * m - call.top, column = tile % call.tile_columns * m - call.left;
  const float *norm_weight = call.norm_weight;
  Pixel<T, kNorm> pixels[kPlanes];
  for (int64_t k = 0; k < kPlanes; ++k) {
    pixels[k] = pixel_at<T, kNorm>(call, frame, row + k / kSide, column + k % kSide, zero_pixel);
  }
  for_each_vector(call.num_in, [&](int64_t i, auto extent) {
    Floats d[kPlanes];
#pragma GCC unroll 36
    for (int k = 0; k < kPlanes; ++k) d[k] = pixels[k].read(i, extent, norm_weight);
#pragma GCC unroll 6
    for (int x = 0; x < kSide; ++x) Winograd<m>::input(d + x, kSide);
#pragma GCC unroll 6
    for (int y = 0; y < kSide; ++y) Winograd<m>::input(d + kSide * y, 1);
#pragma GCC unroll 36
    for (int k = 0; k < kPlanes; ++k) store(to + k * plane_stride + i, d[k], extent);
  });
}

template <bool kNorm, class Factor, class T>
void gather_taps(Factor *to, const CausalConv3d &call, const Frame<T> &frame, int64_t tile, const T *zero_pixel) {
  const int64_t row = tile / call.tile_columns * call.stride.y - call.top;
  const int64_t column = tile % call.tile_columns * call.stride.x - call.left;
  const float *norm_weight = call.norm_weight;
  for (int64_t y = 0; y < call.kernel.y; ++y) {
    for (int64_t x = 0; x < call.kernel.x; ++x, to += call.num_in) {
      const Pixel<T, kNorm> pixel = pixel_at<T, kNorm>(call, frame, row + y, column + x, zero_pixel);
      for_each_vector(call.num_in,
                      [&](int64_t i, auto extent) { store(to + i, pixel.read(i, extent, norm_weight), extent); });
    }
  }
}

// The rows of the frames that the block sees; of frames that are zeros none.
template <bool kNorm, class Factor, class T>
void gather(const CausalConv3d &call, const Block3d &block, const T *zero_pixel) {
  const int64_t first = block.first_frame * call.stride.t,
                count = block.num_frames * call.stride.t + block_history(call);
  const int64_t plane_stride = frames_seen(call) * call.block_tiles * call.depth;
  for (int64_t k = 0; k < count; ++k) {
    const Frame<T> frame = frame_at<T>(call, block.sample, first + k);
    if (!frame.pixels) continue;
    const int64_t at = k * call.block_tiles * call.depth;
    for (int64_t i = 0; i < block.num_tiles; ++i) {
      const int64_t tile = block.first_tile + i, row = at + i * call.depth;
      Factor *taps = reinterpret_cast<Factor *>(block.rows) + row;
      float *planes = block.rows + row;
      if (call.tile_side == 1) gather_taps<kNorm>(taps, call, frame, tile, zero_pixel);
      if (call.tile_side == 2) gather_tile<2, kNorm>(planes, plane_stride, call, frame, tile, zero_pixel);
      if (call.tile_side == 4) gather_tile<4, kNorm>(planes, plane_stride, call, frame, tile, zero_pixel);
    }
  }
}

// ---- products ----

// Of one plane and frame of the kernel: those of the first that is not all zeros are the sums' beginning.
template <class Factor>
void multiply_frame(const CausalConv3d &call, const Block3d &block, const float *packed, const float *ones,
                    int64_t plane, int64_t frame, int64_t num_frames, int64_t t, bool is_first) {
  const int64_t row_step = call.block_tiles * call.depth, width = call.block_groups * kColumns;
  Product<Factor> of;
  of.rows =
      reinterpret_cast<const Factor *>(block.rows) + (plane * frames_seen(call) + frame * call.stride.t + t) * row_step;
  of.stride = call.depth;
  of.group_stride = call.kernel.t * call.depth * kColumns;
  of.groups = reinterpret_cast<const Factor *>(packed) +
              (plane * call.num_groups + block.first_group) * of.group_stride + t * call.depth * kColumns;
  of.num_words = call.depth / kWord<Factor>;
  of.sums = block.products + (plane * call.block_frames + frame) * call.block_tiles * width;
  of.sums_stride = width;
  of.decays = is_first ? nullptr : ones;
  const int64_t num_rows =
      num_frames > 1 ? num_frames * call.block_tiles : (block.num_tiles + kTileStep - 1) / kTileStep * kTileStep;
  multiply<Side::kByRow>(of, num_rows, block.num_groups);
}

template <class Factor>
void multiply_block(const CausalConv3d &call, const Block3d &block, const float *packed, const float *ones) {
  // Frames of zeros before x, seen by the block's first outputs.
  const int64_t num_zeros = block_history(call) - call.position - block.first_frame * call.stride.t;
  for (int64_t plane = 0; plane < call.num_planes; ++plane) {
    if (num_zeros <= 0 && call.stride.t == 1) {  // rows of all frames follow each other
      for (int64_t t = 0; t < call.kernel.t; ++t) {
        multiply_frame<Factor>(call, block, packed, ones, plane, 0, block.num_frames, t, t == 0);
      }
      continue;
    }
    for (int64_t frame = 0; frame < block.num_frames; ++frame) {
      const int64_t skipped = num_zeros - frame * call.stride.t, start = skipped > 0 ? skipped : 0;
      for (int64_t t = start; t < call.kernel.t; ++t) {
        multiply_frame<Factor>(call, block, packed, ones, plane, frame, 1, t, t == start);
      }
    }
  }
}

// ---- outputs ----

// One frame of the output: where it is written, and what is added to it, from a block's first channel on.
template <class T>
struct Target {
  T *out;
  const T *residual;  // null: nothing
  int64_t out_row, out_pixel, residual_row, residual_pixel;

  WK_INLINE Target at(int64_t row, int64_t column) const {
    Target pixel = *this;
    pixel.out += row * out_row + column * out_pixel;
    if (residual) pixel.residual += row * residual_row + column * residual_pixel;
    return pixel;
  }
  template <class Extent>
  WK_INLINE void finish(int64_t i, Floats value, Extent extent) const {
    store(out + i, residual ? value + load(residual + i, extent) : value, extent);
  }
};

template <class T>
T *frame_of(const Video &video, int64_t sample, int64_t frame, int64_t channel) {
  return video.data
             ? reinterpret_cast<T *>(video.data) + sample * video.batch_stride + frame * video.frame_stride + channel
             : nullptr;
}

template <int m, class T>
void join_tile(const Target<T> &target, const CausalConv3d &call, const float *products, int64_t plane_stride,
               int64_t tile, const float *bias, int64_t num_channels) {
  constexpr int kSide = m + 2;
  const int64_t row = tile / call.tile_columns * m, column = tile % call.tile_columns * m;
  const int64_t rows_left = call.out_rows - row, columns_left = call.out_columns - column;
  const Target<T> corner = target.at(row, column);
  for_each_vector(num_channels, [&](int64_t i, auto extent) {
    Floats planes[kSide * kSide], by_row[m * kSide], y[m * m];
#pragma GCC unroll 36
    for (int k = 0; k < kSide * kSide; ++k) planes[k] = load(products + k * plane_stride + i, extent);
#pragma GCC unroll 6
    for (int x = 0; x < kSide; ++x) Winograd<m>::output(by_row + x, kSide, planes + x, kSide);
#pragma GCC unroll 4
    for (int r = 0; r < m; ++r) Winograd<m>::output(y + m * r, 1, by_row + kSide * r, 1);
    const Floats biases = load(bias + i, extent);
#pragma GCC unroll 16
    for (int k = 0; k < m * m; ++k) {
      if (k / m < rows_left && k % m < columns_left) corner.at(k / m, k % m).finish(i, y[k] + biases, extent);
    }
  });
}

template <class T>
void join(const CausalConv3d &call, const Block3d &block) {
  const int64_t width = call.block_groups * kColumns, frame_stride = call.block_tiles * width;
  const int64_t channel = block.first_group * kColumns, left = call.num_out - channel;
  const int64_t num_channels = left < block.num_groups * kColumns ? left : block.num_groups * kColumns;
  const float *bias = call.bias + channel;
  for (int64_t frame = 0; frame < block.num_frames; ++frame) {
    const int64_t at = block.first_frame + frame;
    const Target<T> target = {frame_of<T>(call.out, block.sample, at, channel),
                              frame_of<const T>(call.residual, block.sample, at, channel),
                              call.out.row_stride,
                              call.out.pixel_stride,
                              call.residual.row_stride,
                              call.residual.pixel_stride};
    const float *products = block.products + frame * frame_stride;
    for (int64_t i = 0; i < block.num_tiles; ++i, products += width) {
      const int64_t tile = block.first_tile + i;
      if (call.tile_side == 2)
        join_tile<2>(target, call, products, call.block_frames * frame_stride, tile, bias, num_channels);
      if (call.tile_side == 4)
        join_tile<4>(target, call, products, call.block_frames * frame_stride, tile, bias, num_channels);
      if (call.tile_side > 1) continue;
      const Target<T> pixel = target.at(tile / call.tile_columns, tile % call.tile_columns);
      for_each_vector(num_channels, [&](int64_t k, auto extent) {
        pixel.finish(k, load(products + k, extent) + load(bias + k, extent), extent);
      });
    }
  }
}

// ---- blocks ----

Block3d block_at(const CausalConv3d &call, int64_t index, float *memory) {
  // The part of `count` that is the index's, and what is left of the index.
  const auto take = [&](int64_t count, int64_t size, int64_t *first, int64_t *length) {
    const int64_t blocks = blocks_of(count, size);
    *first = index % blocks * size;
    *length = count - *first < size ? count - *first : size;
    index /= blocks;
  };
  Block3d block;
  take(call.num_groups, call.block_groups, &block.first_group, &block.num_groups);
  take(call.tile_rows * call.tile_columns, call.block_tiles, &block.first_tile, &block.num_tiles);
  take(call.out_frames, call.block_frames, &block.first_frame, &block.num_frames);
  block.sample = index;
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
      const T *zero_pixel = static_cast<const T *>(zeros);
      with_factors(call, [&](auto factor) {
        using Factor = decltype(factor);
        call.norm_weight ? gather<true, Factor>(call, block, zero_pixel)
                         : gather<false, Factor>(call, block, zero_pixel);
        multiply_block<Factor>(call, block, packed, ones);
      });
      join<T>(call, block);
    }
  });
}

}  // namespace

extern const CausalConv3dKernels causal_conv3d_kernels = {pack, forward};

}  // namespace WK_ISA
}  // namespace wk
