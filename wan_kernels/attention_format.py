"""Which codes `attention_8bit` reads fastest on a device, how q, k and v become them, and whether it has a kernel."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from wan_kernels import dispatch
from wan_kernels.define_op import OPS
from wan_kernels.ops.quantize_heads.api import quantize_heads
from wan_kernels.ops.quantize_values.api import quantize_values

Codes = tuple[Tensor, Tensor, Tensor]


@dataclass(frozen=True)
class AttentionFormat:
    """How q, k and v are quantised: tokens that share a scale (v None: all of a channel), v's type and order.

    By error (one head, 256 queries, 4096 keys, head width 128, the mean of k taken off; relative L1 of the result for
    normal numbers and for ones with outliers): a scale for each token or for blocks of 16 of q and 128 of k make no
    difference beside float8 values (0.038 and 0.041, 0.039 and 0.046); values in int8 by blocks of 256 tokens are
    better than over all tokens (0.014 and 0.027, 0.015 and 0.044).
    """

    q_tokens_per_scale: int
    k_tokens_per_scale: int
    v_tokens_per_scale: int | None
    v_dtype: torch.dtype
    is_permuted: bool

    @property
    def options(self) -> dict[str, Any]:
        """What `attention_8bit` wants to be told of it."""
        return {
            "q_tokens_per_scale": self.q_tokens_per_scale,
            "k_tokens_per_scale": self.k_tokens_per_scale,
            "v_tokens_per_scale": self.v_tokens_per_scale,
            "is_permuted": self.is_permuted,
        }


# Integers all through: probabilities are unsigned bytes, and a tile's products one integer sum.
CPU_FORMAT = AttentionFormat(1, 1, 256, torch.int8, is_permuted=False)
# Float8 values in the order of Hopper's registers; k's scale joins the tile's factor.
GPU_FORMAT = AttentionFormat(16, 128, None, torch.float8_e4m3fn, is_permuted=True)


def attention_format(device: torch.device) -> AttentionFormat:
    """The format of the fastest backend for tensors on `device`."""
    return CPU_FORMAT if device.type == "cpu" else GPU_FORMAT


def quantize_qkv(q: Tensor, k: Tensor, v: Tensor, form: AttentionFormat | None = None) -> tuple[Codes, Codes, Codes]:
    """q, k and v as `attention_8bit` reads them, in `form` or the format of their device; k's mean is taken off.

        form = attention_format(q.device)
        out = attention_8bit(*quantize_qkv(q, k, v), **form.options)

    Shapes and types: q [B, L, N, H], k and v [B, S, N, H], fp32/bf16/fp16/fp64. Returns (codes, scales, mean) of each,
    as `quantize_heads` and `quantize_values` have them. In a model the norm before attention writes codes at once:
    `rms_norm_rope_8bit`.
    Raises: TypeError for a dtype, ValueError for a shape.
    """
    form = form or attention_format(q.device)
    return (
        quantize_heads(q, tokens_per_scale=form.q_tokens_per_scale),
        quantize_heads(k, tokens_per_scale=form.k_tokens_per_scale, is_smooth=True),
        quantize_values(v, dtype=form.v_dtype, tokens_per_scale=form.v_tokens_per_scale, is_permuted=form.is_permuted),
    )


def has_attention_8bit(device: torch.device, head_width: int) -> bool:
    """Whether a call there would reach a kernel. The reference, which would run otherwise, keeps all scores."""
    return dispatch.select("attention_8bit", example(device, head_width)).name != dispatch.REFERENCE


def example(device: torch.device, head_width: int, form: AttentionFormat | None = None) -> tuple[Any, ...]:
    """Arguments of the op for one query and one key, in the device's format where none is given."""
    form = form or attention_format(device)
    codes = torch.zeros(1, 1, 1, head_width, dtype=torch.int8, device=device)
    v = torch.zeros(1, 1, head_width, 128, dtype=form.v_dtype, device=device)
    scale, mean = (torch.zeros(shape, device=device) for shape in ((1, 1, 1), (1, 1, head_width)))
    given = (codes, scale, codes, scale, mean, v, mean.unsqueeze(2), mean, torch.bfloat16, None, None, None)
    steps = form.q_tokens_per_scale, form.k_tokens_per_scale, form.v_tokens_per_scale or 0
    return OPS["attention_8bit"].fill_defaults((*given, *steps, form.is_permuted))
