// SPDX-License-Identifier: Apache-2.0
#pragma once
#include "common/status.h"

namespace wk {

// The arguments have passed the checks of wk_rms_norm.
wk_status rms_norm_forward_cuda(const wk_tensor &out, const wk_tensor &x, const wk_tensor &weight, double eps,
                                void *stream);

}  // namespace wk
