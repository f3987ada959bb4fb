// SPDX-License-Identifier: Apache-2.0
#pragma once
#include "common/isa.h"
#include "common/tensor.h"

namespace wk {

// [B, C, T, Y, X] with its channels side by side. Strides count elements.
struct Video {
  char *data = nullptr;
  int64_t batch_stride = 0, frame_stride = 0, row_stride = 0, pixel_stride = 0;
};

struct Kernel3d {
  int64_t t, y, x;
};

// A convolution as products: each frame becomes, once, rows of `depth` numbers, one row for each tile of the output in
// each of `num_planes`; a tile of the output is the sum of products of its rows with the weights, over the frames the
// kernel sees and over its planes.
//
// 3 x 3 taps a pixel apart: Winograd's F(m x m, 3x3), tiles of m x m outputs, (m + 2)^2 planes of C numbers, so many
// products for each channel and tile where taps take 9 m^2. m = 2, and 4 for 16-bit types: it rounds ten times as much
// as m = 2, which they do not see, and takes 0.56 of the products. Else tiles are single outputs, m = 1, and one plane
// holds the taps of all channels.
// Source: A. Lavin, S. Gray, arXiv 1509.09308, sections 4.1 and 4.3.
struct CausalConv3d {
  Video x, ring, out, residual;  // residual.data may be null
  // Frames count from the first of the stream. x begins with frame `position`, and of those before it, which are zeros
  // before the first, frame f lies in slot f % num_slots of the ring.
  int64_t position, num_slots;
  int32_t dtype;
  int64_t num_samples;
  int64_t num_in, num_out;  // channels
  int64_t rows, columns;    // of x, enlarged
  int64_t enlarged_bits;    // a pixel of x stands for 2^bits x 2^bits
  int64_t out_frames, out_rows, out_columns;
  Kernel3d kernel, stride;
  int64_t top, left;         // padding before the first row and column
  const float *bias;         // [num_out]
  const float *norm_weight;  // [num_in], of the norm before the convolution; null: none
  int64_t tile_side;         // m
  int64_t num_planes, depth;
  int64_t tile_rows, tile_columns;                  // tiles of a frame
  int64_t num_groups;                               // of 16 output channels
  int64_t block_frames, block_tiles, block_groups;  // of the output, worked on together
};

constexpr int64_t kTileStep = 8;  // block_tiles is a multiple of it

// Memory of one block in floats: rows of its frames and of those before, then the products.
inline int64_t block_history(const CausalConv3d &call) { return call.kernel.t - call.stride.t; }
inline int64_t frames_seen(const CausalConv3d &call) { return call.block_frames * call.stride.t + block_history(call); }
inline int64_t row_floats(const CausalConv3d &call) {
  return call.num_planes * frames_seen(call) * call.block_tiles * call.depth;
}
inline int64_t product_floats(const CausalConv3d &call) {
  return call.num_planes * call.block_frames * call.block_tiles * call.block_groups * 16;
}

// Those of groups follow each other, then those of tiles, then those of frames.
inline int64_t blocks_of(int64_t count, int64_t block) { return (count + block - 1) / block; }
inline int64_t num_blocks(const CausalConv3d &call) {
  return call.num_samples * blocks_of(call.out_frames, call.block_frames) *
         blocks_of(call.tile_rows * call.tile_columns, call.block_tiles) *
         blocks_of(call.num_groups, call.block_groups);
}

// One tensor [O, C, kt, ky, kx] of any strides.
struct ConvWeight {
  const char *data;
  int64_t stride[5];
};

struct CausalConv3dKernels {
  // Packs output channels [16 * begin, 16 * end) to packed[num_planes][num_groups][kt][depth][16].
  void (*pack)(const CausalConv3d &call, const ConvWeight &weight, float *packed, int64_t begin, int64_t end);
  // Writes blocks [begin, end) of num_blocks(). `memory` is for
  // row_floats() + product_floats() floats; `ones` are block_frames * block_tiles of them, `zeros` num_in of the dtype.
  void (*forward)(const CausalConv3d &call, const float *packed, float *memory, const float *ones, const void *zeros,
                  int64_t begin, int64_t end);
};

WK_DECLARE_KERNELS(CausalConv3dKernels, causal_conv3d_kernels)

}  // namespace wk
