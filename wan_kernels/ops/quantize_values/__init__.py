"""quantize_values: codes of attention's values, by channel. Backends in order of preference."""
