// SPDX-License-Identifier: Apache-2.0
#include "wan_kernels.h"

extern "C" int32_t wk_abi_version(void) { return WK_ABI_VERSION; }
extern "C" const char *wk_version(void) { return WK_VERSION_STRING; }

// WK_BUILD_INFO is put together by CMakeLists.txt.
extern "C" const char *wk_build_info(void) { return WK_BUILD_INFO; }
