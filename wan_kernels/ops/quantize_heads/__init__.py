"""quantize_heads: int8 codes of plain queries or keys, by head. Backends in order of preference."""

from wan_kernels.ops.quantize_heads import backend_cpu as backend_cpu
from wan_kernels.ops.quantize_heads import backend_triton as backend_triton
