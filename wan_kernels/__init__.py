"""Fused ops for the Wan video model: the table of contents."""

from wan_kernels.attention_format import attention_format, quantize_qkv
from wan_kernels.dispatch import use_backend
from wan_kernels.ops.attention.api import attention
from wan_kernels.ops.attention_8bit.api import attention_8bit
from wan_kernels.ops.causal_conv3d.api import causal_conv3d
from wan_kernels.ops.causal_conv3d_ring.api import causal_conv3d_ring
from wan_kernels.ops.channel_rms_norm_silu.api import channel_rms_norm_silu
from wan_kernels.ops.gate_residual.api import gate_residual
from wan_kernels.ops.gate_residual_layer_norm_modulate.api import gate_residual_layer_norm_modulate
from wan_kernels.ops.gate_residual_layer_norm_modulate_8bit.api import gate_residual_layer_norm_modulate_8bit
from wan_kernels.ops.guided_update.api import guided_update
from wan_kernels.ops.layer_norm_modulate.api import layer_norm_modulate
from wan_kernels.ops.layer_norm_modulate_8bit.api import layer_norm_modulate_8bit
from wan_kernels.ops.linear_8bit.api import linear_8bit, pack_linear_8bit
from wan_kernels.ops.merge_attention.api import merge_attention
from wan_kernels.ops.quantize_heads.api import quantize_heads
from wan_kernels.ops.quantize_rows.api import quantize_rows
from wan_kernels.ops.quantize_values.api import quantize_values
from wan_kernels.ops.rms_norm.api import rms_norm
from wan_kernels.ops.rms_norm_rope.api import rms_norm_rope
from wan_kernels.ops.rms_norm_rope_8bit.api import rms_norm_rope_8bit
from wan_kernels.ops.upsample_conv2d.api import upsample_conv2d

__all__ = [
    "attention",
    "attention_8bit",
    "attention_format",
    "causal_conv3d",
    "causal_conv3d_ring",
    "channel_rms_norm_silu",
    "gate_residual",
    "gate_residual_layer_norm_modulate",
    "gate_residual_layer_norm_modulate_8bit",
    "guided_update",
    "layer_norm_modulate",
    "layer_norm_modulate_8bit",
    "linear_8bit",
    "merge_attention",
    "pack_linear_8bit",
    "quantize_heads",
    "quantize_qkv",
    "quantize_rows",
    "quantize_values",
    "rms_norm",
    "rms_norm_rope",
    "rms_norm_rope_8bit",
    "upsample_conv2d",
    "use_backend",
]
