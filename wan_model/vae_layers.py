"""The layers of Wan's VAEs: causal convolutions of a video, or of the next frames of a stream.

Letters: B batch, C channels, T frames, Y rows, X columns.

Causality is one rule: a convolution sees the frames before it, zeros before the first. In one pass (no state) those
lie in the same tensor, and everything is differentiable. In a stream they lie in a `State`, a ring of the last frames
for each convolution: no frame is copied but those a ring keeps, and norms, convolutions and sums are fused.

Every layer computes in the dtype of its input, whatever its weights are stored in: bf16 training over float32 weights
needs no autocast.
Source: arXiv 2503.20314, section 4.1; Wan2.1 at 9737cba, modules/vae.py.
"""

from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import wan_kernels as wk


@dataclass
class Ring:
    """The last frames that a convolution saw, [B, C, R, Y, X], and how many went by: frame f lies in slot f mod R."""

    frames: Tensor
    position: int = 0


@dataclass
class State:
    """What a stream remembers from one chunk to the next. Streams have no gradients."""

    rings: dict[nn.Module, Ring] = field(default_factory=dict)
    begun: set[nn.Module] = field(default_factory=set)

    def begins(self, layer: nn.Module) -> bool:
        """Whether `layer` asks for the first time: whether this chunk is the first that it sees."""
        is_first = layer not in self.begun
        self.begun.add(layer)
        return is_first


def bias_of(conv: nn.Conv2d | nn.Conv3d) -> Tensor:
    """Every convolution here has a bias; torch's types do not know it."""
    assert conv.bias is not None
    return conv.bias


def channels_last(x_BCTYX: Tensor) -> Tensor:
    """The order of every activation: kernels read a pixel's channels side by side."""
    return x_BCTYX.contiguous(memory_format=torch.channels_last_3d)


class ChannelNorm(nn.Module):
    """RMS norm over channels, optionally followed by SiLU in the same pass."""

    def __init__(self, dim: int, *, num_spatial_dims: int = 3, apply_silu: bool = True):
        super().__init__()
        self.gamma = nn.Parameter(torch.ones(dim, *[1] * num_spatial_dims))
        self.apply_silu = apply_silu

    def forward(self, x: Tensor) -> Tensor:
        return wk.channel_rms_norm_silu(x, self.gamma.flatten(), apply_silu=self.apply_silu)


class CausalConv3d(nn.Conv3d):
    """A 3D convolution that sees `kernel - stride` frames of the past."""

    def forward(
        self,
        x_BCTYX: Tensor,
        state: State | None = None,
        *,
        norm: ChannelNorm | None = None,
        residual: Tensor | None = None,
    ) -> Tensor:
        """conv(norm(x)) + residual, either left out where it is None."""
        if state is not None:
            return self.stream(x_BCTYX, state.rings, norm, residual)
        y_BCTYX = self.follow(None, x_BCTYX if norm is None else norm(x_BCTYX))
        return y_BCTYX if residual is None else residual + y_BCTYX

    def follow(self, past_BCTYX: Tensor | None, x_BCTYX: Tensor) -> Tensor:
        """One pass over x, after the `kernel - stride` frames of `past`."""
        weight, bias = self.parameters_in(x_BCTYX.dtype)
        return wk.causal_conv3d(x_BCTYX, weight, bias, past_BCTYX, stride=self.stride, padding=self.around)

    def stream(
        self, x_BCTYX: Tensor, rings: dict[nn.Module, Ring], norm: ChannelNorm | None, residual: Tensor | None
    ) -> Tensor:
        """The next frames of a stream."""
        weight, bias = self.parameters_in(x_BCTYX.dtype)
        if self not in rings:
            rings[self] = Ring(self.new_frames(x_BCTYX))
        ring = rings[self]
        y_BCTYX = wk.causal_conv3d_ring(
            x_BCTYX,
            weight,
            bias,
            ring.frames,
            ring.position,
            norm_weight=None if norm is None else norm.gamma.flatten().to(x_BCTYX.dtype),
            residual=residual,
            stride=self.stride,
            padding=self.around,
        )
        ring.position += x_BCTYX.shape[2]
        return y_BCTYX

    def new_frames(self, x_BCTYX: Tensor) -> Tensor:
        """Memory for a ring of the fewest frames that will do."""
        B, C, _, Y, X = x_BCTYX.shape
        num_slots = self.kernel_size[0] - self.stride[0]
        return x_BCTYX.new_empty(B, num_slots, Y, X, C).permute(0, 4, 1, 2, 3)

    def parameters_in(self, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        return self.weight.to(dtype), bias_of(self).to(dtype)

    @property
    def around(self) -> tuple[int, int, int, int]:
        """Zero rows and columns that keep the frame's size: (top, bottom, left, right)."""
        rows, columns = self.kernel_size[1] // 2, self.kernel_size[2] // 2
        return rows, rows, columns, columns


class ResidualBlock(nn.Module):
    def __init__(self, in_dim: int, out_dim: int):
        super().__init__()
        # Identities, for SiLU and dropout, keep the published indices 0, 2, 3, 6.
        self.residual = nn.Sequential(
            ChannelNorm(in_dim), nn.Identity(), CausalConv3d(in_dim, out_dim, 3),
            ChannelNorm(out_dim), nn.Identity(), nn.Identity(), CausalConv3d(out_dim, out_dim, 3),
        )  # fmt: skip
        self.shortcut = CausalConv3d(in_dim, out_dim, 1) if in_dim != out_dim else nn.Identity()

    def forward(self, x_BCTYX: Tensor, state: State | None = None) -> Tensor:
        first_norm, first_conv, second_norm, second_conv = (self.residual[i] for i in (0, 2, 3, 6))
        y_BCTYX = first_conv(x_BCTYX, state, norm=first_norm)
        return second_conv(y_BCTYX, state, norm=second_norm, residual=self.shortcut(x_BCTYX))


class Head(nn.Sequential):
    """Norm, SiLU and the last convolution of a network, under the published indices 0 and 2."""

    def __init__(self, dim: int, out_dim: int):
        super().__init__(ChannelNorm(dim), nn.Identity(), CausalConv3d(dim, out_dim, 3))

    def forward(self, x_BCTYX: Tensor, state: State | None = None) -> Tensor:
        return self[2](x_BCTYX, state, norm=self[0])


class AttentionBlock(nn.Module):
    """Single-head attention over the pixels of each frame."""

    def __init__(self, dim: int):
        super().__init__()
        self.norm = ChannelNorm(dim, num_spatial_dims=2, apply_silu=False)
        self.to_qkv = nn.Conv2d(dim, 3 * dim, 1)
        self.proj = nn.Conv2d(dim, dim, 1)

    def forward(self, x_BCTYX: Tensor) -> Tensor:
        B, C, T, Y, X = x_BCTYX.shape
        frames = x_BCTYX.transpose(1, 2).reshape(B * T, C, Y, X)
        qkv = pixel_linear(self.norm(frames), self.to_qkv).flatten(2).transpose(1, 2)  # [B*T, Y*X, 3C]
        q, k, v = (part.contiguous() for part in qkv.unsqueeze(2).chunk(3, dim=-1))
        out = wk.attention(q, k, v)  # [B*T, Y*X, 1, C]
        out = pixel_linear(out.squeeze(2).transpose(1, 2).reshape(B * T, C, Y, X), self.proj)
        return x_BCTYX + out.view(B, T, C, Y, X).transpose(1, 2)


def pixel_linear(x_BCYX: Tensor, conv: nn.Conv2d) -> Tensor:
    """A 1x1 convolution in the dtype of `x`."""
    return F.conv2d(x_BCYX, conv.weight.to(x_BCYX.dtype), bias_of(conv).to(x_BCYX.dtype))


def frame_conv(x_BCTYX: Tensor, conv: nn.Module, padding: tuple[int, int, int, int]) -> Tensor:
    """A 2D convolution of every frame; padding counts zero rows and columns (top, bottom, left, right)."""
    assert isinstance(conv, nn.Conv2d)
    weight, bias = conv.weight.unsqueeze(2).to(x_BCTYX.dtype), bias_of(conv).to(x_BCTYX.dtype)
    return wk.causal_conv3d(x_BCTYX, weight, bias, stride=(1, *conv.stride), padding=padding)
