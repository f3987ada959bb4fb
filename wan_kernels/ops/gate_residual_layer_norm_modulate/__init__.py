"""gate_residual_layer_norm_modulate: gate_residual and the norm that follows it. Backends in order of preference."""

from wan_kernels.ops.gate_residual_layer_norm_modulate import backend_cpu as backend_cpu
from wan_kernels.ops.gate_residual_layer_norm_modulate import backend_triton as backend_triton
