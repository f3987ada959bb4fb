// SPDX-License-Identifier: Apache-2.0
// Stands in for the CUDA kernels where the library is built without them, so that it has the same symbols everywhere.
#include "ops/attention_8bit/attention_8bit_cuda.h"
#include "ops/rms_norm/rms_norm_cuda.h"

namespace wk {
namespace {

wk_status refuse(const char *op) {
  return fail(WK_ERROR_UNSUPPORTED,
              "[%s] tensors on CUDA need a library built with CUDA, this one was built without CUDA", op);
}

}  // namespace

wk_status attention_8bit_forward_cuda(const Attention8bitArguments &, void *) { return refuse("attention_8bit"); }

wk_status rms_norm_forward_cuda(const wk_tensor &, const wk_tensor &, const wk_tensor &, double, void *) {
  return refuse("rms_norm");
}

}  // namespace wk
