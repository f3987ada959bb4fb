"""attention_8bit: attention on 8-bit codes. Backends in order of preference."""

from wan_kernels.ops.attention_8bit import backend_cpu as backend_cpu
from wan_kernels.ops.attention_8bit import backend_cuda as backend_cuda
from wan_kernels.ops.attention_8bit import backend_triton as backend_triton
