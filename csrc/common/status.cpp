// SPDX-License-Identifier: Apache-2.0
#include "common/status.h"

#include <cstdarg>
#include <cstdio>

namespace wk {
namespace {
thread_local char last_error[512] = "";
}

wk_status fail(wk_status status, const char *format, ...) {
  va_list arguments;
  va_start(arguments, format);
  std::vsnprintf(last_error, sizeof last_error, format, arguments);
  va_end(arguments);
  return status;
}

}  // namespace wk

extern "C" const char *wk_last_error(void) { return wk::last_error; }
