"""attention in plain PyTorch: the specification. Memory grows with L * S: a truth for tests, not for real lengths.

Rounding points: logits, softmax and the product with v in promote_types(q.dtype, float32); out rounded once to q.dtype.
"""

import torch
from torch import Tensor


def key_mask(k_lengths: Tensor, num_keys: int) -> Tensor:
    """True where a key may be seen: [B, 1, 1, S]."""
    return (torch.arange(num_keys, device=k_lengths.device) < k_lengths[:, None])[:, None, None]


def forward(q: Tensor, k: Tensor, v: Tensor, k_lengths: Tensor | None, scale: float | None) -> tuple[Tensor, Tensor]:
    compute = torch.promote_types(q.dtype, torch.float32)
    q_BNLH, k_BNSH, v_BNSH = (each.to(compute).transpose(1, 2) for each in (q, k, v))
    logits = q_BNLH @ k_BNSH.mT * (q.shape[-1] ** -0.5 if scale is None else scale)
    if k_lengths is not None:
        logits = logits.masked_fill(~key_mask(k_lengths, k.shape[1]), float("-inf"))
    lse = logits.logsumexp(-1)
    out = torch.exp(logits - lse.unsqueeze(-1)) @ v_BNSH
    return out.transpose(1, 2).contiguous().to(q.dtype), lse
