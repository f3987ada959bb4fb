"""rms_norm_rope_8bit: rms_norm_rope with int8 output, as 8-bit attention reads it. Backends in order of preference."""

from wan_kernels.ops.rms_norm_rope_8bit import backend_cpu as backend_cpu
from wan_kernels.ops.rms_norm_rope_8bit import backend_triton as backend_triton
