// SPDX-License-Identifier: Apache-2.0
#include "ops/guided_update/guided_update_cpu.h"

#include "common/memory.h"
#include "common/parallel.h"

namespace wk {
namespace {

constexpr const char *kOp = "guided_update";
constexpr int64_t kGrain = 32768;

// A vector of `like`'s length without gaps, fp32 unless it is a velocity.
wk_status check_vector(const char *name, const wk_tensor *tensor, const wk_tensor *like, bool is_velocity) {
  WK_TRY(check_floating(kOp, name, tensor));
  WK_REQUIRE(tensor->ndim == 1, "[%s] %s must have 1 dimension, got %d", kOp, name, tensor->ndim);
  WK_REQUIRE(tensor->shape[0] <= 1 || tensor->stride[0] == 1, "[%s] %s must be contiguous, got stride %lld", kOp, name,
             static_cast<long long>(tensor->stride[0]));
  WK_REQUIRE(is_velocity || tensor->dtype == WK_FLOAT32, "[%s] %s must be float32, got %s", kOp, name,
             dtype_name(tensor->dtype));
  return check_same_shape(kOp, name, *tensor, "latents", *like);
}

wk_status check_optional(const char *name, const wk_tensor *tensor, const wk_tensor *like, bool is_velocity) {
  return tensor ? check_vector(name, tensor, like, is_velocity) : WK_OK;
}

float *floats(const wk_tensor *tensor) { return tensor ? static_cast<float *>(tensor->data) : nullptr; }

}  // namespace
}  // namespace wk

using namespace wk;

extern "C" wk_status wk_guided_update(const wk_tensor *result, const wk_tensor *denoised, const wk_tensor *start,
                                      const wk_tensor *positive, const wk_tensor *negative, const wk_tensor *latents,
                                      const wk_tensor *base, const wk_tensor *older, const wk_tensor *newer,
                                      double guidance_scale, double sigma, const double base_weights[4],
                                      const double weights[3], void * /*stream*/) {
  WK_TRY(check_floating(kOp, "latents", latents));
  WK_TRY(check_vector("latents", latents, latents, false));
  WK_TRY(check_vector("result", result, latents, false));
  WK_TRY(check_vector("denoised", denoised, latents, false));
  WK_TRY(check_vector("positive", positive, latents, true));
  WK_TRY(check_optional("negative", negative, latents, true));
  if (negative) WK_TRY(check_same_dtype(kOp, "negative", *negative, "positive", *positive));
  WK_TRY(check_optional("base", base, latents, false));
  WK_TRY(check_optional("older", older, latents, false));
  WK_TRY(check_optional("newer", newer, latents, false));
  WK_REQUIRE(!base == !start, "[%s] start must come with base, got only %s", kOp, base ? "base" : "start");
  WK_TRY(check_optional("start", start, latents, false));
  WK_REQUIRE(base_weights && weights, "[%s] base_weights and weights must be given, got NULL", kOp);
  WK_TRY(require_all_cpu(kOp, {result, denoised, start, positive, negative, latents, base, older, newer}));
  const GuidedUpdateKernels *kernels;
  WK_TRY(select_guided_update_kernels(&kernels));

  GuidedUpdate call = {floats(result),
                       floats(denoised),
                       floats(start),
                       positive->data,
                       negative ? negative->data : nullptr,
                       positive->dtype,
                       floats(latents),
                       floats(base),
                       floats(older),
                       floats(newer),
                       static_cast<float>(guidance_scale),
                       static_cast<float>(sigma),
                       {},
                       {}};
  for (int i = 0; i < 4; ++i) call.base_weights[i] = static_cast<float>(base_weights[i]);
  for (int i = 0; i < 3; ++i) call.weights[i] = static_cast<float>(weights[i]);
  prefer_huge_pages(result);
  prefer_huge_pages(denoised);
  if (start) prefer_huge_pages(start);
  parallel_for(latents->shape[0], kGrain, [&](int64_t begin, int64_t end) { kernels->forward(call, begin, end); });
  return WK_OK;
}
