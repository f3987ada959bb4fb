"""channel_rms_norm_silu: the VAE's norm over channels and its activation. Backends in order of preference."""
