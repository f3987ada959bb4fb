"""The C library as wan_kernels.h documents it: results first, then inputs, then options; None stands for NULL."""

from torch import Tensor

def attach(tensor_class: type) -> None: ...
def abi_version() -> int: ...
def version() -> str: ...
def build_info() -> str: ...
def cpu_isa() -> str: ...
def num_threads() -> int: ...
def set_num_threads(num_threads: int) -> None: ...
def rms_norm(out: Tensor, x: Tensor, weight: Tensor, eps: float) -> None: ...
def rms_norm_backward(
    grad_x: Tensor | None, grad_weight: Tensor | None, grad_out: Tensor, x: Tensor, weight: Tensor, eps: float
) -> None: ...
def layer_norm_modulate(
    out: Tensor,
    x: Tensor,
    scale: Tensor | None,
    shift: Tensor | None,
    weight: Tensor | None,
    bias: Tensor | None,
    index: Tensor | None,
    eps: float,
) -> None: ...
def layer_norm_modulate_backward(
    grad_x: Tensor | None,
    grad_scale: Tensor | None,
    grad_shift: Tensor | None,
    grad_weight: Tensor | None,
    grad_bias: Tensor | None,
    grad_out: Tensor,
    x: Tensor,
    scale: Tensor | None,
    shift: Tensor | None,
    weight: Tensor | None,
    bias: Tensor | None,
    index: Tensor | None,
    eps: float,
) -> None: ...
def gate_residual(out: Tensor, x: Tensor, y: Tensor, gate: Tensor, index: Tensor | None) -> None: ...
def gate_residual_backward(
    grad_x: Tensor | None,
    grad_y: Tensor | None,
    grad_gate: Tensor | None,
    grad_out: Tensor,
    y: Tensor,
    gate: Tensor,
    index: Tensor | None,
) -> None: ...
def gate_residual_layer_norm_modulate(
    sum: Tensor,
    out: Tensor,
    x: Tensor,
    y: Tensor,
    gate: Tensor | None,
    scale: Tensor | None,
    shift: Tensor | None,
    weight: Tensor | None,
    bias: Tensor | None,
    index: Tensor | None,
    eps: float,
) -> None: ...
def gate_residual_layer_norm_modulate_backward(
    grad_x: Tensor | None,
    grad_y: Tensor | None,
    grad_gate: Tensor | None,
    grad_scale: Tensor | None,
    grad_shift: Tensor | None,
    grad_weight: Tensor | None,
    grad_bias: Tensor | None,
    grad_sum: Tensor | None,
    grad_out: Tensor | None,
    y: Tensor,
    sum: Tensor,
    gate: Tensor | None,
    scale: Tensor | None,
    shift: Tensor | None,
    weight: Tensor | None,
    bias: Tensor | None,
    index: Tensor | None,
    eps: float,
) -> None: ...
def gate_residual_layer_norm_modulate_8bit(
    sum: Tensor,
    out: Tensor,
    out_scale: Tensor,
    x: Tensor,
    y: Tensor,
    gate: Tensor | None,
    scale: Tensor | None,
    shift: Tensor | None,
    weight: Tensor | None,
    bias: Tensor | None,
    index: Tensor | None,
    eps: float,
) -> None: ...
def rms_norm_rope(
    out: Tensor,
    x: Tensor,
    weight: Tensor,
    freqs_t: Tensor,
    freqs_y: Tensor,
    freqs_x: Tensor,
    num_heads: int,
    grid: list[int],
    eps: float,
) -> None: ...
def rms_norm_rope_backward(
    grad_x: Tensor | None,
    grad_weight: Tensor | None,
    grad_out: Tensor,
    x: Tensor,
    weight: Tensor,
    freqs_t: Tensor,
    freqs_y: Tensor,
    freqs_x: Tensor,
    num_heads: int,
    grid: list[int],
    eps: float,
) -> None: ...
def rms_norm_rope_8bit(
    out: Tensor,
    out_scale: Tensor,
    mean: Tensor,
    x: Tensor,
    weight: Tensor,
    freqs_t: Tensor,
    freqs_y: Tensor,
    freqs_x: Tensor,
    num_heads: int,
    grid: list[int],
    eps: float,
    tokens_per_scale: int,
    is_smooth: bool,
) -> None: ...
def quantize_values(
    out: Tensor,
    out_scale: Tensor,
    mean: Tensor,
    v: Tensor,
    tokens_per_scale: int,
    is_smooth: bool,
    is_permuted: bool,
) -> None: ...
def channel_rms_norm_silu(out: Tensor, x: Tensor, weight: Tensor, apply_silu: bool) -> None: ...
def channel_rms_norm_silu_backward(
    grad_x: Tensor | None, grad_weight: Tensor | None, grad_out: Tensor, x: Tensor, weight: Tensor, apply_silu: bool
) -> None: ...
def guided_update(
    result: Tensor,
    denoised: Tensor,
    start: Tensor | None,
    positive: Tensor,
    negative: Tensor | None,
    latents: Tensor,
    base: Tensor | None,
    older: Tensor | None,
    newer: Tensor | None,
    guidance_scale: float,
    sigma: float,
    base_weights: list[float],
    weights: list[float],
) -> None: ...
def causal_conv3d(
    out: Tensor,
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    cache: Tensor | None,
    stride: list[int],
    padding: list[int],
) -> None: ...
def causal_conv3d_ring(
    out: Tensor,
    ring: Tensor,
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    norm_weight: Tensor | None,
    residual: Tensor | None,
    position: int,
    stride: list[int],
    padding: list[int],
) -> None: ...
def upsample_conv2d(out: Tensor, x: Tensor, weight: Tensor, bias: Tensor | None) -> None: ...
def attention(
    out: Tensor, lse: Tensor, q: Tensor, k: Tensor, v: Tensor, k_lengths: Tensor | None, scale: float
) -> None: ...
def attention_backward(
    grad_q: Tensor,
    grad_k: Tensor,
    grad_v: Tensor,
    grad_out: Tensor | None,
    grad_lse: Tensor | None,
    out: Tensor,
    lse: Tensor,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    k_lengths: Tensor | None,
    scale: float,
) -> None: ...
def merge_attention(out: Tensor, lse: Tensor, out_a: Tensor, lse_a: Tensor, out_b: Tensor, lse_b: Tensor) -> None: ...
def merge_attention_backward(
    grad_out_a: Tensor | None,
    grad_lse_a: Tensor | None,
    grad_out_b: Tensor | None,
    grad_lse_b: Tensor | None,
    grad_out: Tensor | None,
    grad_lse: Tensor | None,
    out_a: Tensor,
    lse_a: Tensor,
    out_b: Tensor,
    lse_b: Tensor,
) -> None: ...
