"""rms_norm_rope: full-width RMSNorm and 3D rotary embedding. Backends in order of preference."""

from wan_kernels.ops.rms_norm_rope import backend_cpu as backend_cpu
from wan_kernels.ops.rms_norm_rope import backend_triton as backend_triton
