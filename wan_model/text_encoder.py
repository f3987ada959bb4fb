"""The umT5 text encoder: token ids in, one vector per token out.

Letters: B batch, L tokens (queries), S tokens (keys), D model width, N heads, H head width.
Attribute names equal the official checkpoint's. Where it differs from most encoders: every layer has its own table
of relative positions, and attention scores are not divided by sqrt(H).
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import wan_kernels
from wan_model.config import TextEncoderConfig


class RMSNorm(nn.Module):
    """RMS norm over the last dimension, without mean or bias."""

    def __init__(self, dim: int, eps: float) -> None:
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(dim))

    def forward(self, x_BLD: Tensor) -> Tensor:
        return wan_kernels.rms_norm(x_BLD, self.weight, eps=self.eps)


class RelativeEmbedding(nn.Module):
    """A learned bias for each head and each bucket of the distance from query to key.

    It starts out near-sighted, so that word order counts from the first step: every other head looks back, the others
    ahead, each pair half as steeply as the one before. The slopes are in the spirit of ALiBi (arXiv 2108.12409).
    """

    def __init__(self, config: TextEncoderConfig) -> None:
        super().__init__()
        self.embedding = nn.Embedding(config.num_buckets, config.num_heads)
        with torch.no_grad():
            self.embedding.weight.copy_(near_sighted_biases(config))

    def forward(self, buckets_LS: Tensor) -> Tensor:
        return self.embedding(buckets_LS).permute(2, 0, 1)  # NLS


class Attention(nn.Module):
    """Self-attention with an additive bias, softmax in float32."""

    def __init__(self, config: TextEncoderConfig) -> None:
        super().__init__()
        self.num_heads = config.num_heads
        attention_dim = config.num_heads * config.head_dim
        self.q = nn.Linear(config.dim, attention_dim, bias=False)
        self.k = nn.Linear(config.dim, attention_dim, bias=False)
        self.v = nn.Linear(config.dim, attention_dim, bias=False)
        self.o = nn.Linear(attention_dim, config.dim, bias=False)
        # Small queries stand in for the missing 1/sqrt(H).
        nn.init.normal_(self.q.weight, std=(config.dim * config.head_dim) ** -0.5)
        nn.init.normal_(self.k.weight, std=config.dim**-0.5)
        nn.init.normal_(self.v.weight, std=config.dim**-0.5)
        nn.init.normal_(self.o.weight, std=attention_dim**-0.5)

    def forward(self, x_BLD: Tensor, bias_BNLS: Tensor) -> Tensor:
        q_BLNH, k_BSNH, v_BSNH = (
            project(x_BLD).unflatten(-1, (self.num_heads, -1)) for project in (self.q, self.k, self.v)
        )
        scores_BNLS = torch.einsum("blnh,bsnh->bnls", q_BLNH, k_BSNH) + bias_BNLS
        # float64 stays float64, so that gradients can be checked.
        softmax_dtype = torch.promote_types(scores_BNLS.dtype, torch.float32)
        weights_BNLS = scores_BNLS.softmax(-1, dtype=softmax_dtype).to(v_BSNH.dtype)
        return self.o(torch.einsum("bnls,bsnh->blnh", weights_BNLS, v_BSNH).flatten(2))


class FeedForward(nn.Module):
    """fc2(fc1(x) * gelu_tanh(gate(x)))."""

    def __init__(self, config: TextEncoderConfig) -> None:
        super().__init__()
        gate = nn.Linear(config.dim, config.ffn_dim, bias=False)
        self.gate = nn.Sequential(gate, nn.GELU(approximate="tanh"))
        self.fc1 = nn.Linear(config.dim, config.ffn_dim, bias=False)
        self.fc2 = nn.Linear(config.ffn_dim, config.dim, bias=False)
        nn.init.normal_(gate.weight, std=config.dim**-0.5)
        nn.init.normal_(self.fc1.weight, std=config.dim**-0.5)
        nn.init.normal_(self.fc2.weight, std=config.ffn_dim**-0.5)

    def forward(self, x_BLD: Tensor) -> Tensor:
        return self.fc2(self.fc1(x_BLD) * self.gate(x_BLD))


class Block(nn.Module):
    """Pre-norm attention, then pre-norm feed-forward."""

    def __init__(self, config: TextEncoderConfig) -> None:
        super().__init__()
        self.norm1 = RMSNorm(config.dim, config.eps)
        self.attn = Attention(config)
        self.norm2 = RMSNorm(config.dim, config.eps)
        self.ffn = FeedForward(config)
        self.pos_embedding = RelativeEmbedding(config)

    def forward(self, x_BLD: Tensor, buckets_LS: Tensor, mask_bias_B11S: Tensor) -> Tensor:
        bias_BNLS = self.pos_embedding(buckets_LS) + mask_bias_B11S
        x_BLD = keep_finite(x_BLD + self.attn(self.norm1(x_BLD), bias_BNLS))
        return keep_finite(x_BLD + self.ffn(self.norm2(x_BLD)))


class TextEncoder(nn.Module):
    """The umT5 encoder of Wan.

    Call: `encoder(ids_BL, mask_BL) -> x_BLD`, in the dtype of the weights.
    - ids: [B, L], int64, in [0, vocab_size).
    - mask: [B, L], true or 1 for text, false or 0 for padding; at least one true per row.
    Rows of padding come back as zeros, which is how the DiT wants its context padded.
    Source: umT5 (arXiv 2304.09151) as in Wan2.1 `modules/t5.py` at 9737cba.
    """

    def __init__(self, config: TextEncoderConfig) -> None:
        super().__init__()
        self.config = config
        self.token_embedding = nn.Embedding(config.vocab_size, config.dim)
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.num_layers))
        self.norm = RMSNorm(config.dim, config.eps)

    def forward(self, ids_BL: Tensor, mask_BL: Tensor) -> Tensor:
        x_BLD = self.token_embedding(ids_BL)
        keep_BL = mask_BL.bool()
        mask_bias_BL = torch.zeros_like(keep_BL, dtype=x_BLD.dtype)
        mask_bias_BL = mask_bias_BL.masked_fill(~keep_BL, torch.finfo(x_BLD.dtype).min)
        buckets_LS = relative_buckets(ids_BL.shape[1], self.config).to(ids_BL.device)
        for block in self.blocks:
            x_BLD = block(x_BLD, buckets_LS, mask_bias_BL[:, None, None])
        return self.norm(x_BLD) * keep_BL[..., None]


def relative_buckets(length: int, config: TextEncoderConfig) -> Tensor:
    """Bucket of the distance from each query to each key: exact when near, logarithmic when far.

    Returns [length, length] int64 on the CPU, in [0, num_buckets); the upper half is for keys after the query.
    Computed on the CPU in float32 because a device's own logarithm may round a distance into the next bucket.
    """
    num_directional = config.num_buckets // 2
    num_exact = num_directional // 2
    position_L = torch.arange(length)
    offset_LS = position_L[None, :] - position_L[:, None]
    distance_LS = offset_LS.abs()
    # The clamp keeps log away from 0; those entries take the exact branch.
    octaves_LS = torch.log(distance_LS.clamp(min=1).float() / num_exact) / math.log(config.max_distance / num_exact)
    far_LS = num_exact + (octaves_LS * (num_directional - num_exact)).long()
    bucket_LS = torch.where(distance_LS < num_exact, distance_LS, far_LS.clamp(max=num_directional - 1))
    return bucket_LS + (offset_LS > 0) * num_directional


def near_sighted_biases(config: TextEncoderConfig) -> Tensor:
    """[num_buckets, num_heads]: minus the distance times the head's slope; a token itself counts as a neighbour.

    Keys on the side that a head does not look at are 3 below that. Nothing is below -8.
    """
    num_directional = config.num_buckets // 2
    num_exact = num_directional // 2
    bucket = torch.arange(num_directional).float()
    octaves = (bucket - num_exact) / (num_directional - num_exact)
    far = num_exact * (config.max_distance / num_exact) ** octaves
    distance = torch.where(bucket < num_exact, bucket, far).clamp_min(1)
    biases = []
    for head in range(config.num_heads):
        seen = -distance / (1 + head // 2)
        halves = [seen, seen - 3] if head % 2 == 0 else [seen - 3, seen]
        halves[0][0] = seen[0]
        biases.append(torch.cat(halves))
    return torch.stack(biases, dim=1).clamp_min(-8)


def keep_finite(x: Tensor) -> Tensor:
    """Clamp a float16 stream, whose residual sums overflow in the deeper layers of the XXL encoder."""
    if x.dtype != torch.float16:
        return x
    limit = torch.finfo(x.dtype).max - 1000
    return F.hardtanh(x, -limit, limit)
