"""layer_norm_modulate: LN(x) * (1 + scale) + shift. Backends in order of preference."""
