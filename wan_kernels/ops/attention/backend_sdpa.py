"""attention on torch's own fused kernels: flash on CPU; flash or memory-efficient on CUDA. No matrix of logits is kept.

Calls the aten ops under F.scaled_dot_product_attention, because that function does not return the log-sum-exp. The
fused backwards take no gradient through the log-sum-exp: where there is one, the reference runs on blocks of queries.
"""

from collections.abc import Callable
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
LSE_ALIGNMENT = 32
# Torch's flash backward on CPU spends 0.09 ms on a head before any work. Up to so many logits per head plain products
# are faster in 16 bits (bf16, Zen 4, 2 cores, H 128; ms flash, products): 64 x 2 heads of 36 x 36 13.7, 4.7; 16 x 2
# heads of 180 x 32 10.2, 6.7; of 180 x 180 21, 16; of 12 heads of 780 x 780 flash is the faster.
SMALL_HEAD = 2**16
# Logits held at once where a gradient flows through the log-sum-exp: 256 MiB of float32.
MAX_LOGITS = 2**26


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
    q, k, v = _by_head(q, k, v)
    return run(q, k, v, k_lengths, scale)


def backward(
    grads: tuple[Tensor | None, ...], inputs: Inputs, outputs: tuple[Tensor, ...]
) -> tuple[Tensor | None, ...]:
    q, k, v, k_lengths, scale = inputs
    grad_out, grad_lse = grads
    if grad_lse is not None or grad_out is None:
        return _backward_through_lse(grads, inputs, outputs)
    run: Callable[..., tuple[Tensor, ...]] = _backward_cpu if q.device.type == "cpu" else _backward_cuda
    grad_out, q, k, v, out = _by_head(grad_out, q, k, v, outputs[0])
    found = run(grad_out, q, k, v, out, outputs[1], k_lengths, scale)
    return (*(grad.transpose(1, 2) for grad in found), None)


def _backward_through_lse(
    grads: tuple[Tensor | None, ...], inputs: Inputs, outputs: tuple[Tensor, ...]
) -> tuple[Tensor | None, ...]:
    q, k, v, k_lengths, scale = inputs
    grad_out, grad_lse = grads
    wide_k, wide_v = (each.to(torch.promote_types(each.dtype, torch.float32)) for each in (k, v))
    num_queries = max(MAX_LOGITS // max(q.shape[0] * q.shape[2] * k.shape[1], 1), 1)
    grad_q, grad_k, grad_v = [], torch.zeros_like(wide_k), torch.zeros_like(wide_v)
    for start in range(0, q.shape[1], num_queries):
        rows = slice(start, start + num_queries)
        block = (q[:, rows].to(wide_k.dtype), wide_k, wide_v, k_lengths, scale)
        block_grads = (
            None if grad_out is None else grad_out[:, rows],
            None if grad_lse is None else grad_lse[..., rows],
        )
        block_q, block_k, block_v, _ = reference.backward(block_grads, block, outputs)
        grad_q.append(block_q)
        grad_k += block_k
        grad_v += block_v
    return torch.cat(grad_q, dim=1).to(q.dtype), grad_k.to(k.dtype), grad_v.to(v.dtype), None


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
    is_small = q.dtype in HALVES and q.shape[2] * k.shape[2] <= SMALL_HEAD
    run = _backward_by_products if is_small else _backward_flash_cpu
    # The flash kernel reads the log-sum-exp as [B, L, N] in memory.
    lse = lse.transpose(1, 2).contiguous().transpose(1, 2)
    scale = q.shape[3] ** -0.5 if scale is None else scale
    if k_lengths is None:
        return run(grad_out, q, k, v, out, lse, scale)
    grad_q, grad_k, grad_v = torch.empty_like(q), torch.zeros_like(k), torch.zeros_like(v)
    for i, keys in _per_sample(k_lengths):
        inputs = (grad_out[i], q[i], k[i, :, keys], v[i, :, keys], out[i], lse[i])
        grad_q[i], grad_k[i, :, keys], grad_v[i, :, keys] = run(*inputs, scale)
    return grad_q, grad_k, grad_v


def _backward_flash_cpu(
    grad_out: Tensor, q: Tensor, k: Tensor, v: Tensor, out: Tensor, lse: Tensor, scale: float
) -> tuple[Tensor, ...]:
    flash_backward = aten._scaled_dot_product_flash_attention_for_cpu_backward
    return flash_backward(grad_out, q, k, v, out, lse, 0.0, False, scale=scale)


def _backward_by_products(
    grad_out: Tensor, q: Tensor, k: Tensor, v: Tensor, out: Tensor, lse: Tensor, scale: float
) -> tuple[Tensor, ...]:
    """Five batched products, with the logits of every head in memory; probabilities and their gradient in float32."""
    grad_out, q, k, v, out = (each.flatten(0, 1) for each in (grad_out, q, k, v, out))
    probs = torch.bmm(q.float(), k.float().transpose(1, 2)).mul_(scale).sub_(lse.flatten(0, 1).unsqueeze(-1)).exp_()
    grad_v = torch.bmm(probs.to(q.dtype).transpose(1, 2), grad_out)
    shared = (out.float() * grad_out).sum(dim=-1, keepdim=True)
    grad_probs = torch.bmm(grad_out.float(), v.float().transpose(1, 2))
    grad_logits = grad_probs.sub_(shared).mul_(probs).mul_(scale).to(q.dtype)
    grads = torch.bmm(grad_logits, k), torch.bmm(grad_logits.transpose(1, 2), q), grad_v
    return tuple(grad.unflatten(0, lse.shape[:2]) for grad in grads)


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
    # The state of the random generator is not read without dropout.
    unused = torch.zeros((), dtype=torch.int64, device=q.device)
    if _use_flash(q, k_lengths):
        # No packed sequences, no dropout, not causal.
        rest = (None, None, q.shape[2], k.shape[2], 0.0, False, unused, unused)
        return aten._scaled_dot_product_flash_attention_backward(grad_out, q, k, v, out, lse, *rest, scale=scale)
    bias = _key_bias(q, k, k_lengths)
    padded_lse = F.pad(lse, (0, -lse.shape[2] % LSE_ALIGNMENT), value=float("inf"))
    saved = (grad_out, q, k, v, bias, out, padded_lse, unused, unused)
    needed = [True, True, True, False]
    return aten._scaled_dot_product_efficient_attention_backward(*saved, 0.0, needed, scale=scale)[:3]


register_backend("attention", "sdpa", forward=forward, backward=backward, reject=reject)
