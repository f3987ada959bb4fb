"""rms_norm: x / rms(x) * weight. Backends in order of preference."""

from wan_kernels.ops.rms_norm import backend_cpu as backend_cpu
from wan_kernels.ops.rms_norm import backend_cuda as backend_cuda
from wan_kernels.ops.rms_norm import backend_triton as backend_triton
