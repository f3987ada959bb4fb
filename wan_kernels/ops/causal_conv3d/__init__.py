"""causal_conv3d: a 3D convolution that sees the past,. Backends in order of preference."""

from wan_kernels.ops.causal_conv3d import backend_onednn as backend_onednn
