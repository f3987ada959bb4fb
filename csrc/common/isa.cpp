// SPDX-License-Identifier: Apache-2.0
#include "common/isa.h"

#include <cstdlib>
#include <cstring>

namespace wk {
namespace {

constexpr const char *kVariable = "WAN_KERNELS_CPU_ISA";

struct IsaEntry {
  Isa isa;
  const char *name;
  bool (*runs_here)();
};

bool always() { return true; }

#if WK_X86_64
bool has_avx2() {
  return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("f16c");
}
// VNNI included: Cascade Lake, Ice Lake, Zen 4 and what follows.
bool has_avx512() {
  return has_avx2() && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
         __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq") &&
         __builtin_cpu_supports("avx512vnni");
}
// Cooper Lake, Zen 4, Sapphire Rapids.
bool has_avx512_bf16() { return has_avx512() && __builtin_cpu_supports("avx512bf16"); }
#else
bool never() { return false; }
constexpr auto has_avx2 = never;
constexpr auto has_avx512 = never;
constexpr auto has_avx512_bf16 = never;
#endif

// Widest first: without a forced choice, the first that runs here.
constexpr IsaEntry kEntries[] = {{Isa::kAvx512Bf16, "avx512_bf16", has_avx512_bf16},
                                 {Isa::kAvx512, "avx512", has_avx512},
                                 {Isa::kAvx2, "avx2", has_avx2},
                                 {Isa::kBaseline, "baseline", always}};

struct Choice {
  const IsaEntry *entry = nullptr;  // null: the forced name cannot run
  const char *forced = nullptr;
  bool is_known = true;
};

Choice choose() {
  Choice choice;
  choice.forced = std::getenv(kVariable);
  const bool is_forced = choice.forced && *choice.forced;
  choice.is_known = !is_forced;
  for (const IsaEntry &entry : kEntries) {
    if (is_forced && std::strcmp(choice.forced, entry.name) != 0) continue;
    choice.is_known = true;
    if (!entry.runs_here()) continue;
    choice.entry = &entry;
    break;
  }
  return choice;
}

const Choice &current_choice() {
  static const Choice choice = choose();
  return choice;
}

}  // namespace

wk_status current_isa(Isa *isa) {
  const Choice &choice = current_choice();
  WK_REQUIRE(choice.is_known, "[cpu_isa] %s must be baseline, avx2, avx512 or avx512_bf16, got %s", kVariable,
             choice.forced);
  if (!choice.entry) {
    return fail(WK_ERROR_UNSUPPORTED, "[cpu_isa] %s=%s must be what this machine and build can run, it is not",
                kVariable, choice.forced);
  }
  *isa = choice.entry->isa;
  return WK_OK;
}

}  // namespace wk

extern "C" wk_status wk_cpu_isa(const char **name) {
  WK_REQUIRE(name, "[cpu_isa] name must not be NULL");
  wk::Isa isa;
  WK_TRY(wk::current_isa(&isa));
  *name = wk::current_choice().entry->name;
  return WK_OK;
}
