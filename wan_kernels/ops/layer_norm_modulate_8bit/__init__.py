"""layer_norm_modulate_8bit: layer_norm_modulate with row-quantised output. Backends in order of preference."""

from wan_kernels.ops.layer_norm_modulate_8bit import backend_cpu as backend_cpu
from wan_kernels.ops.layer_norm_modulate_8bit import backend_triton as backend_triton
