"""channel_rms_norm_silu: the VAE's norm over channels and its activation. Backends in order of preference."""

from wan_kernels.ops.channel_rms_norm_silu import backend_cpu as backend_cpu
from wan_kernels.ops.channel_rms_norm_silu import backend_triton as backend_triton
