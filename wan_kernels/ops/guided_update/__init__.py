"""guided_update: guidance and a solver's step in one pass. Backends in order of preference."""

from wan_kernels.ops.guided_update import backend_cpu as backend_cpu
from wan_kernels.ops.guided_update import backend_triton as backend_triton
