"""The Wan diffusion transformer: one class for every published checkpoint.

Letters: B batch, L video tokens, S context tokens, D model width, N heads, H head width, R distinct timesteps,
C channels, and T, Y, X the frames, rows and columns of the latent grid (t, y, x of the token grid).

The residual stream, the modulation and the head run in float32, as the authors' autocast islands have it; linear
layers run in the dtype of their weights (or of autocast). Attribute names are those of the official state dicts.
Source: arXiv 2503.20314, section 4.2; Wan2.1 at 9737cba, modules/model.py.
"""

from collections.abc import Iterable
from contextlib import nullcontext
from dataclasses import dataclass
from functools import cache, partial
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import wan_kernels as wk
from wan_model.config import DiTConfig

ROPE_LENGTH = 1024
ROPE_THETA = 10000.0


def timestep_embedding(timestep: Tensor, dim: int) -> Tensor:
    """Sinusoids of a timestep in [0, 1000]: [..., dim] float32, cosines first. Angles are taken in float64."""
    half = dim // 2
    frequencies = 10000.0 ** (-torch.arange(half, dtype=torch.float64, device=timestep.device) / half)
    angles = timestep.double().unsqueeze(-1) * frequencies
    return torch.cat([angles.cos(), angles.sin()], dim=-1).float()


@cache
def rope_tables(head_dim: int, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    """(cos, sin) of every position along t, y and x: three [1024, pairs, 2] float32 tables, computed in float64.

    A head's width is split 44 / 42 / 42 for 128: time takes what two equal, even spatial bands leave over.
    """
    space = 2 * (head_dim // 6)
    return tuple(rope_table(band, device) for band in (head_dim - 2 * space, space, space))  # type: ignore[return-value]


def rope_table(band: int, device: torch.device) -> Tensor:
    frequencies = ROPE_THETA ** (-torch.arange(0, band, 2, dtype=torch.float64) / band)
    angles = torch.outer(torch.arange(ROPE_LENGTH, dtype=torch.float64), frequencies)
    return torch.stack([angles.cos(), angles.sin()], dim=-1).float().to(device)


def distinct_timesteps(timestep_BL: Tensor) -> tuple[Tensor, Tensor]:
    """Per-token timesteps [B, L] as ([B, R], index [B, L]), so that each distinct one is embedded once."""
    values, index = timestep_BL.unique(return_inverse=True)
    return values.expand(timestep_BL.shape[0], -1), index


def is_autocast_on(device_type: str) -> bool:
    """Whether autocast is active; asked first because devices without autocast (meta) raise on the question."""
    return torch.amp.is_autocast_available(device_type) and torch.is_autocast_enabled(device_type)


def linear_fp32(layer: nn.Linear, x: Tensor) -> Tensor:
    """A linear layer computed in float32 whatever the weights are stored in, autocast or not."""
    with torch.autocast(x.device.type, enabled=False) if is_autocast_on(x.device.type) else nullcontext():
        return F.linear(x.float(), layer.weight.float(), None if layer.bias is None else layer.bias.float())


def compute_dtype(weight: Tensor) -> torch.dtype:
    """The dtype that a layer multiplies in: autocast's, where it is on, else that of its weight."""
    device_type = weight.device.type
    return torch.get_autocast_dtype(device_type) if is_autocast_on(device_type) else weight.dtype


class RMSNorm(nn.Module):
    """The weight of a full-width RMS norm; the op that applies it is chosen by the attention that owns it."""

    def __init__(self, dim: int):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(dim))


class Attention(nn.Module):
    """Projections and norms shared by self- and cross-attention."""

    def __init__(self, config: DiTConfig):
        super().__init__()
        self.num_heads, self.eps = config.num_heads, config.eps
        self.q = nn.Linear(config.dim, config.dim)
        self.k = nn.Linear(config.dim, config.dim)
        self.v = nn.Linear(config.dim, config.dim)
        self.o = nn.Linear(config.dim, config.dim)
        self.norm_q = RMSNorm(config.dim)
        self.norm_k = RMSNorm(config.dim)

    def split_heads(self, x_BLD: Tensor) -> Tensor:
        return x_BLD.unflatten(-1, (self.num_heads, -1))


class SelfAttention(Attention):
    def forward(self, x_BLD: Tensor, grid: tuple[int, int, int]) -> Tensor:
        tables = rope_tables(x_BLD.shape[-1] // self.num_heads, x_BLD.device)
        norm = partial(wk.rms_norm_rope, num_heads=self.num_heads, grid=grid, eps=self.eps)
        q_BLNH = norm(self.q(x_BLD), self.norm_q.weight, *tables)
        k_BLNH = norm(self.k(x_BLD), self.norm_k.weight, *tables)
        return self.o(wk.attention(q_BLNH, k_BLNH, self.split_heads(self.v(x_BLD))).flatten(2))


class CrossAttention(Attention):
    """Every context row is attended, zero-padded ones too: the models were trained that way."""

    def read_text(self, context_BSD: Tensor) -> tuple[Tensor, Tensor]:
        """Keys and values of the context, [B, S, N, H] each: the same in every step of a sampling run."""
        k_BSD = wk.rms_norm(self.k(context_BSD), self.norm_k.weight, eps=self.eps)
        return self.split_heads(k_BSD), self.split_heads(self.v(context_BSD))

    def forward(self, x_BLD: Tensor, k_BSNH: Tensor, v_BSNH: Tensor) -> Tensor:
        q_BLNH = self.split_heads(wk.rms_norm(self.q(x_BLD), self.norm_q.weight, eps=self.eps))
        return self.o(wk.attention(q_BLNH, k_BSNH, v_BSNH).flatten(2))


@dataclass(frozen=True)
class TextStates:
    """What the blocks read of a context: for each block keys and values [B, S, N, H], or codes of both in 8 bits, the
    samples first. Made by `DiT.read_text`.
    """

    keys_values: tuple[tuple[Tensor, ...], ...]

    def __len__(self) -> int:
        return len(self.keys_values[0][0])


def modulation_rows(modulation: Tensor, e_BR6D: Tensor) -> tuple[Tensor, ...]:
    """shift, scale and gate of self-attention, then of the feed-forward: [B, R, D] float32 each."""
    return (modulation.float().unsqueeze(1) + e_BR6D).unbind(2)


class Block(nn.Module):
    def __init__(self, config: DiTConfig):
        super().__init__()
        self.eps = config.eps
        self.self_attn = SelfAttention(config)
        self.norm3 = nn.LayerNorm(config.dim, eps=config.eps)
        self.cross_attn = CrossAttention(config)
        self.ffn = nn.Sequential(
            nn.Linear(config.dim, config.ffn_dim), nn.GELU(approximate="tanh"), nn.Linear(config.ffn_dim, config.dim)
        )
        self.modulation = nn.Parameter(torch.randn(1, 6, config.dim) / config.dim**0.5)

    def forward(
        self,
        x_BLD: Tensor,
        e_BR6D: Tensor,
        index_BL: Tensor | None,
        text: tuple[Tensor, Tensor],
        grid: tuple[int, int, int],
    ) -> Tensor:
        shift1, scale1, gate1, shift2, scale2, gate2 = modulation_rows(self.modulation, e_BR6D)
        eps, dtype = self.eps, compute_dtype(self.self_attn.q.weight)
        # A sum and its norm are one pass; the norm of the last sum is the next block's.
        add_then_norm = partial(wk.gate_residual_layer_norm_modulate, index=index_BL, eps=eps, out_dtype=dtype)

        h = wk.layer_norm_modulate(x_BLD, scale1, shift1, index=index_BL, eps=eps, out_dtype=dtype)
        x_BLD, h = add_then_norm(x_BLD, self.self_attn(h, grid), gate1, weight=self.norm3.weight, bias=self.norm3.bias)
        x_BLD, h = add_then_norm(x_BLD, self.cross_attn(h, *text), None, scale2, shift2)
        return wk.gate_residual(x_BLD, self.ffn(h), gate2, index=index_BL)


class Head(nn.Module):
    def __init__(self, config: DiTConfig):
        super().__init__()
        pt, py, px = config.patch_size
        self.eps = config.eps
        self.head = nn.Linear(config.dim, pt * py * px * config.out_dim)
        self.modulation = nn.Parameter(torch.randn(1, 2, config.dim) / config.dim**0.5)

    def forward(self, x_BLD: Tensor, e_BRD: Tensor, index_BL: Tensor | None) -> Tensor:
        shift, scale = (self.modulation.float().unsqueeze(1) + e_BRD.unsqueeze(2)).unbind(2)
        h = wk.layer_norm_modulate(x_BLD, scale, shift, index=index_BL, eps=self.eps)
        return linear_fp32(self.head, h)


class DiT(nn.Module):
    """Predicts the velocity, noise minus data, of noisy latents."""

    def __init__(self, config: DiTConfig):
        super().__init__()
        if config.has_image_cross_attention or config.vace_layers:
            raise ValueError("[dit] config must be a text-to-video model's, got image or VACE layers: not built yet")
        self.config = config
        dim = config.dim
        self.patch_embedding = nn.Conv3d(config.in_dim, dim, kernel_size=config.patch_size, stride=config.patch_size)
        self.text_embedding = nn.Sequential(
            nn.Linear(config.text_dim, dim), nn.GELU(approximate="tanh"), nn.Linear(dim, dim)
        )
        self.time_embedding = nn.Sequential(nn.Linear(config.freq_dim, dim), nn.SiLU(), nn.Linear(dim, dim))
        self.time_projection = nn.Sequential(nn.SiLU(), nn.Linear(dim, 6 * dim))
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.num_layers))
        self.head = Head(config)

    def forward(
        self, x_BCTYX: Tensor, timestep: Tensor, context: Tensor | TextStates, *, timestep_index: Tensor | None = None
    ) -> Tensor:
        """The velocity at `x`, float32, [B, out_dim, T, Y, X].

        Args:
            x_BCTYX: noisy latents, [B, in_dim, T, Y, X]; Y and X must be multiples of the patch.
            timestep: in [0, 1000]; [B], or [B, R] with `timestep_index` saying which row each token uses.
            context: states of the text encoder, [B, S, text_dim], S <= text_len, or what `read_text` made of them.
            timestep_index: [B, L] integers in [0, R), tokens ordered (t, y, x) with x fastest.
                See `distinct_timesteps`.

        Raises:
            ValueError: a shape is not as above.
        """
        self.check(x_BCTYX, timestep, timestep_index)
        text = context if isinstance(context, TextStates) else self.read_text(context)
        grid = tuple(n // p for n, p in zip(x_BCTYX.shape[2:], self.config.patch_size, strict=True))
        dtype = self.patch_embedding.weight.dtype
        x_BLD = self.patch_embedding(x_BCTYX.to(dtype)).flatten(2).transpose(1, 2).float().contiguous()

        e_BRD, e_BR6D = self.embed_time(timestep if timestep.ndim == 2 else timestep.unsqueeze(1))
        for block, keys_values in zip(self.blocks, text.keys_values, strict=True):
            x_BLD = block(x_BLD, e_BR6D, timestep_index, keys_values, grid)
        return self.unpatchify(self.head(x_BLD, e_BRD, timestep_index), grid)  # type: ignore[arg-type]

    def read_text(self, context_BSD: Tensor) -> TextStates:
        """What every block reads of a context [B, S <= text_len, text_dim], padded with zeros to text_len.

        It does not depend on the video or the timestep: a sampling run makes it once for each prompt.
        """
        config = self.config
        if context_BSD.ndim != 3 or context_BSD.shape[1] > config.text_len or context_BSD.shape[2] != config.text_dim:
            raise ValueError(
                f"[dit] context must be [B, S <= {config.text_len}, {config.text_dim}], got {list(context_BSD.shape)}"
            )
        context_BSD = F.pad(context_BSD, (0, 0, 0, config.text_len - context_BSD.shape[1]))
        context_BSD = self.text_embedding(context_BSD.to(self.patch_embedding.weight.dtype))
        blocks = cast(Iterable[Block], self.blocks)
        return TextStates(tuple(block.cross_attn.read_text(context_BSD) for block in blocks))

    def embed_time(self, timestep_BR: Tensor) -> tuple[Tensor, Tensor]:
        """The time embedding [B, R, D] and its projection to six modulation rows [B, R, 6, D], in float32."""
        sinusoids = timestep_embedding(timestep_BR, self.config.freq_dim)
        hidden = F.silu(linear_fp32(self.time_embedding[0], sinusoids))  # type: ignore[arg-type]
        e_BRD = linear_fp32(self.time_embedding[2], hidden)  # type: ignore[arg-type]
        projected = linear_fp32(self.time_projection[1], F.silu(e_BRD))  # type: ignore[arg-type]
        return e_BRD, projected.unflatten(-1, (6, -1))

    def unpatchify(self, patches_BLP: Tensor, grid: tuple[int, int, int]) -> Tensor:
        """Patches laid out (pt, py, px, c) back to [B, C, T, Y, X]."""
        patches = patches_BLP.unflatten(-1, (*self.config.patch_size, -1)).unflatten(1, grid)
        B, t, y, x, pt, py, px, C = patches.shape
        return patches.permute(0, 7, 1, 4, 2, 5, 3, 6).reshape(B, C, t * pt, y * py, x * px)

    def check(self, x: Tensor, timestep: Tensor, timestep_index: Tensor | None) -> None:
        config = self.config
        if x.ndim != 5 or x.shape[1] != config.in_dim:
            raise ValueError(f"[dit] latents must be [B, {config.in_dim}, T, Y, X], got {list(x.shape)}")
        if any(n % p for n, p in zip(x.shape[2:], config.patch_size, strict=True)):
            raise ValueError(f"[dit] latent grid must divide by the patch {config.patch_size}, got {list(x.shape[2:])}")
        if timestep.ndim == 2 and timestep.shape[1] > 1 and timestep_index is None:
            raise ValueError(f"[dit] timestep {list(timestep.shape)} needs a timestep_index; see distinct_timesteps")

    def init_weights(self) -> None:
        """Xavier linears with zero bias, text and time embeddings normal 0.02, head zero, as the authors start."""
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight)
                nn.init.zeros_(module.bias)
        nn.init.xavier_uniform_(self.patch_embedding.weight.flatten(1))
        for embedding in (self.text_embedding, self.time_embedding):
            for index in (0, 2):
                nn.init.normal_(embedding[index].weight, std=0.02)  # type: ignore[arg-type]
        nn.init.zeros_(self.head.head.weight)
