"""causal_conv3d: a 3D convolution that sees the past,. Backends in order of preference."""
