/* SPDX-License-Identifier: Apache-2.0
 * The header is C99, and the library behind it is the one it describes. */
#include <stdio.h>
#include <string.h>

#include "wan_kernels.h"

int main(void) {
  const int64_t shape[2] = {2, 3};
  float data[6];
  const wk_tensor tensor = wk_contiguous(data, WK_FLOAT32, 2, shape);
  if (wk_abi_version() != WK_ABI_VERSION || strcmp(wk_version(), WK_VERSION_STRING) != 0) {
    printf("header and library differ\n");
    return 1;
  }
  return tensor.stride[0] == 3 && tensor.stride[1] == 1 && tensor.device == WK_CPU ? 0 : 1;
}
