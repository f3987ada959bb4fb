"""How near an attention comes to attention in float64, on some of its queries and heads against all keys.

Letters: B batch, L queries, R those of them that are judged, S keys, N heads, n those that are judged, H head width.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from wan_kernels.attention_bench.inputs import CAPTURED, Inputs

# q [B, R, n, H], k and v [B, S, n, H].
Read = tuple[Tensor, Tensor, Tensor]

NUM_ROWS = 256
# Keys at a time: 256 rows of two heads hold 32 MiB of logits in float64.
CHUNK = 8192

# The least cosine. Where a scale of k spans a block of tokens, an outlier costs the others their bits: exact attention
# to such codes of 700 keys has 0.9983 (tests/ops/test_attention_8bit.py).
BARS = {"random": 0.9990, "outlier": 0.9985, "video": 0.9999}
BARS_OF_BLOCKS = BARS | {"outlier": 0.9975}
# What 8 bits cost captured inputs is a finding, not a fault: there the gate asks for attention to what was read.
READ_BAR = 0.9990
# The most that a log-sum-exp may be off that of the q and k that were read.
LSE_BAR = 1e-3


@dataclass(frozen=True)
class Part:
    """Which queries and heads are judged: up to 256 spread over the length, the first head and the last."""

    rows: Tensor
    heads: list[int]

    @classmethod
    def of(cls, q: Tensor) -> "Part":
        length, num_heads = q.shape[1:3]
        rows = torch.linspace(0, length - 1, min(length, NUM_ROWS), dtype=torch.float64, device=q.device)
        return cls(rows.round().long(), sorted({0, num_heads - 1}))

    def queries(self, x: Tensor) -> Tensor:
        """[B, L, N, H] to [B, R, n, H]."""
        return x[:, self.rows][:, :, self.heads]

    def keys(self, x: Tensor) -> Tensor:
        """[B, S, N, H] to [B, S, n, H]."""
        return x[:, :, self.heads]

    def log_sums(self, lse: Tensor) -> Tensor:
        """[B, N, L] to [B, n, R]."""
        return lse[:, self.heads][..., self.rows]


@dataclass(frozen=True)
class Truth:
    """Attention in float64 on the inputs as they were given: what a contender rounds them to is part of its error."""

    part: Part
    out: Tensor  # [B, R, n, H]
    lse: Tensor  # [B, n, R]

    @classmethod
    def of(cls, inputs: Inputs) -> "Truth":
        part = Part.of(inputs.q)
        return cls(part, *attention_in_double(part.queries(inputs.q), part.keys(inputs.k), part.keys(inputs.v)))


def attention_in_double(q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    """softmax(q k^T / sqrt(H)) v, [B, R, n, H], and its log-sum-exp [B, n, R]; a chunk of keys at a time."""
    q = q.double().transpose(1, 2) * q.shape[-1] ** -0.5
    lse = torch.full(q.shape[:3], float("-inf"), dtype=torch.float64, device=q.device)
    out = torch.zeros_like(q)
    for k_part, v_part in zip(k.split(CHUNK, 1), v.split(CHUNK, 1), strict=True):
        logits = q @ k_part.double().permute(0, 2, 3, 1)
        total = torch.logaddexp(lse, logits.logsumexp(-1))
        weights = torch.exp(logits - total.unsqueeze(-1))
        out = out * torch.exp(lse - total).unsqueeze(-1) + weights @ v_part.double().transpose(1, 2)
        lse = total
    return out.transpose(1, 2), lse


def errors_of(out: Tensor, truth: Truth) -> dict[str, Any]:
    """Cosine, relative L1 and the rest, of the whole slice at once. error_max is a share of the truth's largest."""
    got, wanted = truth.part.queries(out).double().flatten(), truth.out.flatten()
    noise = got - wanted
    power = noise.square().mean().item()
    return {
        "cosine": cosine_of(got, wanted),
        "relative_l1": (noise.abs().sum() / wanted.abs().sum()).item(),
        "rmse": power**0.5,
        "sqnr_db": (10 * torch.log10(wanted.square().mean() / power)).item() if power else None,
        "error_max": (noise.abs().max() / wanted.abs().max()).item(),
    }


def errors_of_read(out: Tensor, lse: Tensor | None, read: Read, truth: Truth) -> dict[str, float]:
    """Off attention in float64 to what was read (for 8 bits the codes, dequantised): the kernel's own error.

    lse_error is off the truth's, lse_error_read off that of what was read: the largest difference, in e-folds.
    """
    wanted, wanted_lse = attention_in_double(*read)
    figures = {"cosine_read": cosine_of(truth.part.queries(out), wanted)}
    if lse is None:
        return figures
    got = truth.part.log_sums(lse).double()
    return figures | {
        "lse_error": (got - truth.lse).abs().max().item(),
        "lse_error_read": (got - wanted_lse).abs().max().item(),
    }


def cosine_of(got: Tensor, wanted: Tensor) -> float:
    return F.cosine_similarity(got.double().flatten(), wanted.double().flatten(), dim=0).item()


def verdict(figures: dict[str, Any], family: str, *, spans_tokens: bool) -> str | None:
    """Why the figures are red, or None. spans_tokens: a scale of k is shared by a block of tokens."""
    # Not `<`: a NaN is red too.
    if family == CAPTURED:
        found = figures.get("cosine_read", figures["cosine"])
        if not found >= READ_BAR:
            return f"cosine {found:.5f} with attention to what was read is below {READ_BAR:.4f}"
    elif not figures["cosine"] >= (bar := (BARS_OF_BLOCKS if spans_tokens else BARS)[family]):
        return f"cosine {figures['cosine']:.5f} is below {bar:.4f}"
    error = figures.get("lse_error_read")
    if error is not None and not error <= LSE_BAR:
        return f"log-sum-exp is {error:.1e} off that of what was read, more than {LSE_BAR:g}"
    return None
