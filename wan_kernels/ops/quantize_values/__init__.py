"""quantize_values: codes of attention's values, by channel. Backends in order of preference."""

from wan_kernels.ops.quantize_values import backend_cpu as backend_cpu
from wan_kernels.ops.quantize_values import backend_triton as backend_triton
