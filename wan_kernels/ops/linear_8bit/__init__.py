"""linear_8bit: 8-bit matrix product with everything that follows it. Backends in order of preference."""

from wan_kernels.ops.linear_8bit import backend_cpu as backend_cpu
from wan_kernels.ops.linear_8bit import backend_torch as backend_torch
from wan_kernels.ops.linear_8bit import backend_triton as backend_triton
