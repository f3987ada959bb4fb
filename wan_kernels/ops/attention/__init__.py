"""attention: softmax(q k^T * scale) v, and its log-sum-exp. Backends in order of preference."""

from wan_kernels.ops.attention import backend_cpu as backend_cpu
from wan_kernels.ops.attention import backend_sdpa as backend_sdpa
from wan_kernels.ops.attention import backend_triton as backend_triton
