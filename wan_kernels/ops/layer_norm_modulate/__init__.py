"""layer_norm_modulate: LN(x) * (1 + scale) + shift. Backends in order of preference."""

from wan_kernels.ops.layer_norm_modulate import backend_cpu as backend_cpu
from wan_kernels.ops.layer_norm_modulate import backend_triton as backend_triton
