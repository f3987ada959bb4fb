"""causal_conv3d: a 3D convolution that sees the past, with its history as argument and result. Backends in order of preference."""
