"""causal_conv3d_ring: a causal convolution of a stream, whose past lies in a ring of frames."""

from wan_kernels.ops.causal_conv3d_ring import backend_cpu as backend_cpu
from wan_kernels.ops.causal_conv3d_ring import backend_triton as backend_triton
