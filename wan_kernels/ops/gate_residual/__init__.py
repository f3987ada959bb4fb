"""gate_residual: x + y * gate. Backends in order of preference."""

from wan_kernels.ops.gate_residual import backend_cpu as backend_cpu
from wan_kernels.ops.gate_residual import backend_triton as backend_triton
