"""rms_norm_rope_8bit: rms_norm_rope with int8 output, as 8-bit attention reads it. Backends in order of preference."""
