"""rms_norm: x / rms(x) * weight. Backends in order of preference."""
