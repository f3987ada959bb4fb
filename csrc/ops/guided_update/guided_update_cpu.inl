// SPDX-License-Identifier: Apache-2.0
#include "common/cpu/vec.h"
#include "ops/guided_update/guided_update_cpu.h"

namespace wk {
namespace WK_ISA {
namespace {

template <class T>
void forward_as(const GuidedUpdate &call, int64_t begin, int64_t end) {
  const GuidedUpdate c = call;
  const T *positive = static_cast<const T *>(c.positive), *negative = static_cast<const T *>(c.negative);
  for_each_vector(end - begin, [&](int64_t offset, auto extent) {
    const int64_t i = begin + offset;
    Floats velocity = load(positive + i, extent);
    if (negative) {
      const Floats away = load(negative + i, extent);
      velocity = away + splat(c.guidance_scale) * (velocity - away);
    }
    const Floats latents = load(c.latents + i, extent);
    const Floats denoised = latents - splat(c.sigma) * velocity;
    const Floats newer = c.newer ? load(c.newer + i, extent) : zeros();
    Floats start = latents;
    if (c.base) {
      start = splat(c.base_weights[0]) * load(c.base + i, extent);
      if (c.older) start += splat(c.base_weights[1]) * load(c.older + i, extent);
      if (c.newer) start += splat(c.base_weights[2]) * newer;
      start += splat(c.base_weights[3]) * denoised;
      store(c.start + i, start, extent);
    }
    Floats result = splat(c.weights[0]) * start;
    if (c.newer) result += splat(c.weights[1]) * newer;
    store(c.result + i, result + splat(c.weights[2]) * denoised, extent);
    store(c.denoised + i, denoised, extent);
  });
}

void forward(const GuidedUpdate &call, int64_t begin, int64_t end) {
  with_dtype(call.velocity_dtype, [&](auto type) { forward_as<decltype(type)>(call, begin, end); });
}

}  // namespace

extern const GuidedUpdateKernels guided_update_kernels = {forward};

}  // namespace WK_ISA
}  // namespace wk
