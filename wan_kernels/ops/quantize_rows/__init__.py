"""quantize_rows: 8-bit codes and a scale for each row. Backends in order of preference."""

from wan_kernels.ops.quantize_rows import backend_cpu as backend_cpu
from wan_kernels.ops.quantize_rows import backend_triton as backend_triton
