"""causal_conv3d: a 3D convolution that sees the past, never the future. Backends in order of preference."""

from wan_kernels.ops.causal_conv3d import backend_cpu as backend_cpu
from wan_kernels.ops.causal_conv3d import backend_onednn as backend_onednn
from wan_kernels.ops.causal_conv3d import backend_triton as backend_triton
