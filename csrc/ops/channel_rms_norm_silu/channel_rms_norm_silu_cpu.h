// SPDX-License-Identifier: Apache-2.0
#pragma once
#include "common/isa.h"
#include "common/tensor.h"

namespace wk {

// [B, C, S], S the spatial positions in memory order. Planes: position_stride 1. Rows (channels-last):
// channel_stride 1.
struct ChannelView {
  char *data = nullptr;
  int64_t batch_stride = 0;  // elements
  int64_t channel_stride = 0;
  int64_t position_stride = 0;
};

struct ChannelRmsNormSiluCall {
  ChannelView x;
  ChannelView out;       // forward
  ChannelView grad_out;  // backward
  ChannelView grad_x;    // backward; data null: not wanted
  const float *weight;
  int64_t num_channels;
  int32_t dtype;
  bool is_planes;
  bool has_silu;
  bool is_out_streamed;  // forward
};

// A block of positions of one sample.
struct ChannelBlock {
  int64_t sample, begin, end;
};

struct ChannelRmsNormSiluKernels {
  // `scratch`: scratch_floats() of the block.
  void (*forward)(const ChannelRmsNormSiluCall &call, const ChannelBlock &block, float *scratch);
  // Also adds the block's share to grad_weight[C], unless that is null.
  void (*backward)(const ChannelRmsNormSiluCall &call, const ChannelBlock &block, float *scratch, float *grad_weight);
};

// Two values per channel and position, and two per position: what backward keeps of a block.
WK_INLINE int64_t scratch_floats(int64_t num_channels, int64_t positions) { return 2 * (num_channels + 1) * positions; }

WK_DECLARE_KERNELS(ChannelRmsNormSiluKernels, channel_rms_norm_silu_kernels)

}  // namespace wk
