"""merge_attention: attention over two disjoint sets of keys, from the parts. Backends in order of preference."""

from wan_kernels.ops.merge_attention import backend_cpu as backend_cpu
from wan_kernels.ops.merge_attention import backend_triton as backend_triton
