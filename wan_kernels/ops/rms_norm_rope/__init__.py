"""rms_norm_rope: full-width RMSNorm and 3D rotary embedding. Backends in order of preference."""
