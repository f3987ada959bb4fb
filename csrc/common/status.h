// SPDX-License-Identifier: Apache-2.0
// How an entry point refuses: a status for the caller, one line for the reader.
#pragma once
#include "wan_kernels.h"

namespace wk {

// Keeps the message for wk_last_error() and returns `status`, so that a refusal is one statement.
wk_status fail(wk_status status, const char *format, ...) __attribute__((format(printf, 2, 3)));

}  // namespace wk

#define WK_REQUIRE(condition, ...)                                               \
  do {                                                                           \
    if (!(condition)) return ::wk::fail(WK_ERROR_INVALID_ARGUMENT, __VA_ARGS__); \
  } while (0)

#define WK_TRY(expression)                              \
  do {                                                  \
    const wk_status wk_try_status_ = (expression);      \
    if (wk_try_status_ != WK_OK) return wk_try_status_; \
  } while (0)
