"""attention on torch's own fused kernels: flash on CPU; flash or memory-efficient on CUDA. No matrix of logits is kept.

Calls the aten ops under F.scaled_dot_product_attention, because that function does not return the log-sum-exp. A
gradient that flows through the log-sum-exp goes to the reference: the fused backwards take none.
"""

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from wan_kernels.dispatch import register_backend
from wan_kernels.ops.attention import reference

Inputs = tuple[Tensor, Tensor, Tensor, Tensor | None, float | None]

aten: Any = torch.ops.aten
HALVES = (torch.bfloat16, torch.float16)
# The flash kernel's limit on H; the memory-efficient one has none but wants rows of 16 bytes.
FLASH_MAX_HEAD_WIDTH = 256
# The memory-efficient kernel reads the bias in vectors, and pads its log-sum-exp to whole blocks of queries.
BIAS_ALIGNMENT = 16


def reject(q: Tensor, k: Tensor, v: Tensor, k_lengths: Tensor | None, scale: float | None) -> str | None:
    if q.device.type not in ("cpu", "cuda"):
        return f"runs on cpu and cuda, not {q.device.type}"
    if q.numel() == 0:
        return "takes no empty tensors"
    if q.device.type == "cpu":
        return None
    if q.dtype is torch.float64:
        return "takes no float64 on cuda"
    return None if q.shape[3] * q.element_size() % 16 == 0 else "wants rows of a multiple of 16 bytes on cuda"


def forward(q: Tensor, k: Tensor, v: Tensor, k_lengths: Tensor | None, scale: float | None) -> tuple[Tensor, Tensor]:
    run = _forward_cpu if q.device.type == "cpu" else _forward_cuda
    return run(*_by_head(q, k, v), k_lengths, scale)


def backward(
    grads: tuple[Tensor | None, ...], inputs: Inputs, outputs: tuple[Tensor, ...]
) -> tuple[Tensor | None, ...]:
    q, k, v, k_lengths, scale = inputs
    grad_out, grad_lse = grads
    if grad_lse is not None or grad_out is None:
        return reference.backward(grads, inputs, outputs)
    run = _backward_cpu if q.device.type == "cpu" else _backward_cuda
    out, lse = outputs
    found = run(*_by_head(grad_out, q, k, v, out), lse, k_lengths, scale)
    return (*(grad.transpose(1, 2) for grad in found), None)


def _by_head(*tensors: Tensor) -> tuple[Tensor, ...]:
    """[B, L, N, H] -> [B, N, L, H], rows contiguous as the kernels want them."""
    return tuple((each if each.stride(-1) == 1 else each.contiguous()).transpose(1, 2) for each in tensors)


def _per_sample(k_lengths: Tensor) -> list[tuple[slice, slice]]:
    """Which sample, which of its keys. On CPU cutting the keys off is cheaper than masking them."""
    return [(slice(i, i + 1), slice(0, length)) for i, length in enumerate(k_lengths.tolist())]


def _forward_cpu(
    q: Tensor, k: Tensor, v: Tensor, k_lengths: Tensor | None, scale: float | None
) -> tuple[Tensor, Tensor]:
    flash = aten._scaled_dot_product_flash_attention_for_cpu
    if k_lengths is None:
        out, lse = flash(q, k, v, scale=scale)
        return out.transpose(1, 2).contiguous(), lse.contiguous()
    parts = [flash(q[i], k[i, :, keys], v[i, :, keys], scale=scale) for i, keys in _per_sample(k_lengths)]
    outs, lses = zip(*parts, strict=True)
    return torch.cat(outs).transpose(1, 2).contiguous(), torch.cat(lses).contiguous()


def _backward_cpu(
    grad_out: Tensor,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    out: Tensor,
    lse: Tensor,
    k_lengths: Tensor | None,
    scale: float | None,
) -> tuple[Tensor, ...]:
    flash_backward = aten._scaled_dot_product_flash_attention_for_cpu_backward
    # The kernel reads the log-sum-exp as [B, L, N] in memory.
    lse = lse.transpose(1, 2).contiguous().transpose(1, 2)
    if k_lengths is None:
        return flash_backward(grad_out, q, k, v, out, lse, 0.0, False, scale=scale)
    grad_q, grad_k, grad_v = torch.empty_like(q), torch.zeros_like(k), torch.zeros_like(v)
    for i, keys in _per_sample(k_lengths):
        inputs = (grad_out[i], q[i], k[i, :, keys], v[i, :, keys], out[i], lse[i])
        grad_q[i], grad_k[i, :, keys], grad_v[i, :, keys] = flash_backward(*inputs, 0.0, False, scale=scale)
    return grad_q, grad_k, grad_v


def _use_flash(q: Tensor, k_lengths: Tensor | None) -> bool:
    return k_lengths is None and q.dtype in HALVES and q.shape[3] <= FLASH_MAX_HEAD_WIDTH and q.shape[3] % 8 == 0


def _key_bias(q: Tensor, k: Tensor, k_lengths: Tensor | None) -> Tensor | None:
    """0 for a key that may be seen and -inf for one that may not: [B, N, L, S], one row per sample in memory."""
    if k_lengths is None:
        return None
    num_keys = k.shape[2]
    padded = -(-num_keys // BIAS_ALIGNMENT) * BIAS_ALIGNMENT
    bias = torch.zeros(q.shape[0], 1, 1, padded, dtype=q.dtype, device=q.device)
    bias = bias.masked_fill(~reference.key_mask(k_lengths, padded), float("-inf"))
    return bias[..., :num_keys].expand(*q.shape[:3], num_keys)


def _forward_cuda(
    q: Tensor, k: Tensor, v: Tensor, k_lengths: Tensor | None, scale: float | None
) -> tuple[Tensor, Tensor]:
    if _use_flash(q, k_lengths):
        out, lse = aten._scaled_dot_product_flash_attention(q, k, v, scale=scale)[:2]
    else:
        bias = _key_bias(q, k, k_lengths)
        out, lse = aten._scaled_dot_product_efficient_attention(q, k, v, bias, True, scale=scale)[:2]
    return out.transpose(1, 2).contiguous(), lse[..., : q.shape[2]].contiguous()


def _backward_cuda(
    grad_out: Tensor,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    out: Tensor,
    lse: Tensor,
    k_lengths: Tensor | None,
    scale: float | None,
) -> tuple[Tensor, ...]:
    # Dropout is off, so the state of its random generator is never read.
    unused = torch.zeros((), dtype=torch.int64, device=q.device)
    if _use_flash(q, k_lengths):
        lengths = (None, None, q.shape[2], k.shape[2])
        dropout = (0.0, False, unused, unused)
        saved = (grad_out, q, k, v, out, lse, *lengths, *dropout)
        return aten._scaled_dot_product_flash_attention_backward(*saved, scale=scale)
    padded_lse = F.pad(lse, (0, -lse.shape[2] % 32), value=float("inf"))
    saved = (grad_out, q, k, v, _key_bias(q, k, k_lengths), out, padded_lse, unused, unused)
    needed = [True, True, True, False]
    return aten._scaled_dot_product_efficient_attention_backward(*saved, 0.0, needed, scale=scale)[:3]


register_backend("attention", "sdpa", forward=forward, backward=backward, reject=reject)
