"""attention in plain PyTorch: the specification. Memory grows with L * S: a truth for tests, not for real lengths.

Rounding points: logits, softmax and the product with v in promote_types(q.dtype, float32); out rounded once to q.dtype.
"""

import torch
from torch import Tensor

from wan_kernels.common.cost import Cost, num_bytes

# Backward does five products of L x S x H where forward does two.
BACKWARD_FLOPS_RATIO = 2.5


def key_mask(k_lengths: Tensor, num_keys: int) -> Tensor:
    """True where a key may be seen: [B, 1, 1, S]."""
    return (torch.arange(num_keys, device=k_lengths.device) < k_lengths[:, None])[:, None, None]


def widened_by_head(k_lengths: Tensor | None, q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """q, k, v as [B, N, L, H] in the type of computation, hidden keys and values zeroed: 0 times NaN would be NaN."""
    compute = torch.promote_types(q.dtype, torch.float32)
    q_BNLH, k_BNSH, v_BNSH = (each.to(compute).transpose(1, 2) for each in (q, k, v))
    if k_lengths is None:
        return q_BNLH, k_BNSH, v_BNSH
    is_hidden = ~key_mask(k_lengths, k.shape[1]).mT
    return q_BNLH, k_BNSH.masked_fill(is_hidden, 0), v_BNSH.masked_fill(is_hidden, 0)


def logits_of(q_BNLH: Tensor, k_BNSH: Tensor, k_lengths: Tensor | None, scale: float) -> Tensor:
    logits = q_BNLH @ k_BNSH.mT * scale
    return logits if k_lengths is None else logits.masked_fill(~key_mask(k_lengths, k_BNSH.shape[2]), float("-inf"))


def scale_of(q: Tensor, scale: float | None) -> float:
    return q.shape[-1] ** -0.5 if scale is None else scale


def forward(q: Tensor, k: Tensor, v: Tensor, k_lengths: Tensor | None, scale: float | None) -> tuple[Tensor, Tensor]:
    q_BNLH, k_BNSH, v_BNSH = widened_by_head(k_lengths, q, k, v)
    logits = logits_of(q_BNLH, k_BNSH, k_lengths, scale_of(q, scale))
    lse = logits.logsumexp(-1)
    out = torch.exp(logits - lse.unsqueeze(-1)) @ v_BNSH
    return out.transpose(1, 2).contiguous().to(q.dtype), lse


def backward(
    grads: tuple[Tensor | None, ...],
    inputs: tuple[Tensor, Tensor, Tensor, Tensor | None, float | None],
    outputs: tuple[Tensor, ...],
) -> tuple[Tensor, Tensor, Tensor, None]:
    """Takes a gradient through the log-sum-exp too. Source: arXiv 2205.14135, algorithm 4.

    The softmax is computed anew, not from the saved log-sum-exp, whose rounding another backend may have made.
    """
    q, k, v, k_lengths, scale = inputs
    grad_out, grad_lse = grads
    q_BNLH, k_BNSH, v_BNSH = widened_by_head(k_lengths, q, k, v)
    factor = scale_of(q, scale)
    weights = logits_of(q_BNLH, k_BNSH, k_lengths, factor).softmax(-1)

    grad_v = torch.zeros_like(v_BNSH)
    grad_logits = torch.zeros_like(weights) if grad_lse is None else weights * grad_lse.unsqueeze(-1)
    if grad_out is not None:
        grad_out_BNLH = grad_out.to(weights.dtype).transpose(1, 2)
        grad_v = weights.mT @ grad_out_BNLH
        grad_weights = grad_out_BNLH @ v_BNSH.mT
        mean_grad = (weights * grad_weights).sum(-1, keepdim=True)
        grad_logits = grad_logits + weights * (grad_weights - mean_grad)
    grad_q, grad_k = grad_logits @ k_BNSH * factor, grad_logits.mT @ q_BNLH * factor
    grad_q, grad_k, grad_v = (grad.transpose(1, 2).to(q.dtype) for grad in (grad_q, grad_k, grad_v))
    return grad_q, grad_k, grad_v, None


def cost(q: Tensor, k: Tensor, v: Tensor, k_lengths: Tensor | None, scale: float | None) -> Cost:
    """Two products of L x S x H per head. Counts every key: the lengths are data."""
    flops = 4 * q.numel() * k.shape[1]
    lse_bytes = 4 * q.numel() // max(q.shape[-1], 1)
    return Cost(flops, num_bytes(q, q, k, v, k_lengths) + lse_bytes)
