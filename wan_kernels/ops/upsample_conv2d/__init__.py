"""upsample_conv2d: frames of twice the size, convolved without being made. Backends in order of preference."""

from wan_kernels.ops.upsample_conv2d import backend_cpu as backend_cpu
from wan_kernels.ops.upsample_conv2d import backend_triton as backend_triton
