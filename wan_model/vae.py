"""The VAEs of Wan: causal 3D autoencoders that run in chunks of any length. One definition for both.

That of 2.1 makes one latent of 4 frames and 8x8 pixels, that of 2.2 of 4 frames and 16x16: it folds squares of pixels
into channels first, and leads a shortcut without weights around every level (`vae_folding`). A `VAEConfig` says which.

Letters: B batch, C channels, T frames, Y rows, X columns (of whatever grid the layer works on), Z latent channels,
S pixels to a latent along one side (8 or 16).

With a `State` a video is fed chunk by chunk, without it (None) in one pass, and both give the same result. The first
frame of a video stands alone: it is never merged in time by the encoder nor doubled by the decoder, so T frames become
1 + (T - 1) / 4 latents.

Layers are those of `vae_layers`. Attribute names are those of `Wan2.1_VAE.pth` and `Wan2.2_VAE.pth`.
Source: arXiv 2503.20314, section 4.1; Wan2.1 at 9737cba, modules/vae.py; Wan2.2 at 42bf4cf, modules/vae2_2.py.
"""

from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

import wan_kernels as wk
from wan_model.config import VAEConfig
from wan_model.vae_folding import Stride, average_down, duplicate_up, patchify, unpatchify
from wan_model.vae_layers import (
    AttentionBlock,
    CausalConv3d,
    Head,
    ResidualBlock,
    Ring,
    State,
    bias_of,
    channels_last,
    frame_conv,
)
from wan_model.vae_stream import check_chunk, check_num_frames, check_sides, regroup


class CausalSequential(nn.Sequential):
    """Layers in order, the state handed to those that keep one."""

    def forward(self, x: Tensor, state: State | None = None) -> Tensor:
        for layer in self:
            x = run(layer, x, state)
        return x


def run(layer: nn.Module, x: Tensor, state: State | None) -> Tensor:
    return layer(x, state) if isinstance(layer, STATEFUL) else layer(x)


def starts_video(layer: nn.Module, state: State | None) -> bool:
    """Whether this chunk is the first that `layer` sees."""
    return state is None or state.begins(layer)


def split_first(resample: nn.Module, x_BCTYX: Tensor, state: State | None) -> tuple[Tensor | None, Tensor]:
    """The first frame of the video, if `x` begins with it, and the rest."""
    if not starts_video(resample, state):
        return None, x_BCTYX
    return x_BCTYX[:, :, :1], x_BCTYX[:, :, 1:]


class Downsample(nn.Module):
    """Halves rows and columns; with `in_time`, also every pair of frames after the first becomes one."""

    def __init__(self, dim: int, *, in_time: bool):
        super().__init__()
        self.resample = nn.Sequential(nn.Identity(), nn.Conv2d(dim, dim, 3, stride=2))
        self.time_conv = CausalConv3d(dim, dim, (3, 1, 1), stride=(2, 1, 1)) if in_time else None

    def forward(self, x_BCTYX: Tensor, state: State | None = None) -> Tensor:
        x_BCTYX = frame_conv(x_BCTYX, self.resample[1], padding=(0, 1, 0, 1))
        if self.time_conv is None:
            return x_BCTYX
        first, rest = split_first(self, x_BCTYX, state)
        rest = channels_last(rest)
        if first is None:
            return self.time_conv(rest, state)
        # The first frame passes through untouched and is the past of the frames that follow.
        if state is not None:
            state.rings[self.time_conv] = Ring(first.clone(memory_format=torch.channels_last_3d), position=1)
        if not rest.shape[2]:
            return first
        pairs = self.time_conv.follow(first, rest) if state is None else self.time_conv(rest, state)
        return torch.cat([first, pairs], dim=2)


class Upsample(nn.Module):
    """Doubles rows and columns; with `in_time`, every frame after the first becomes two."""

    def __init__(self, dim: int, out_dim: int, *, in_time: bool):
        super().__init__()
        self.resample = nn.Sequential(nn.Identity(), nn.Conv2d(dim, out_dim, 3, padding=1))
        self.time_conv = CausalConv3d(dim, 2 * dim, (3, 1, 1)) if in_time else None

    def forward(self, x_BCTYX: Tensor, state: State | None = None) -> Tensor:
        if self.time_conv is not None:
            x_BCTYX = self.double_frames(x_BCTYX, state)
        conv = self.resample[1]
        assert isinstance(conv, nn.Conv2d)
        return wk.upsample_conv2d(x_BCTYX, conv.weight.to(x_BCTYX.dtype), bias_of(conv).to(x_BCTYX.dtype))

    def double_frames(self, x_BCTYX: Tensor, state: State | None) -> Tensor:
        """Two frames from each; the first frame stays single, and the temporal convolution never sees it."""
        first, rest = split_first(self, x_BCTYX, state)
        if rest.shape[2]:
            assert self.time_conv is not None
            pairs = self.time_conv(channels_last(rest), state).unflatten(1, (2, -1))  # [B, 2, C, T, Y, X]
            rest = channels_last(torch.stack([pairs[:, 0], pairs[:, 1]], dim=3).flatten(2, 3))
        if first is None:
            return rest
        return torch.cat([first, rest], dim=2) if rest.shape[2] else first


class DownLevel(nn.Module):
    """A level of the encoder with an averaging shortcut around it. `stride` counts (frames, pixels)."""

    def __init__(self, layers: Sequence[nn.Module], stride: Stride):
        super().__init__()
        self.downsamples = CausalSequential(*layers)
        self.stride = stride

    def forward(self, x_BCTYX: Tensor, state: State | None = None) -> Tensor:
        y_BCTYX: Tensor = self.downsamples(x_BCTYX, state)
        is_first = starts_video(self, state)
        return y_BCTYX + average_down(x_BCTYX, y_BCTYX.shape[1], self.stride, starts_video=is_first)


class UpLevel(nn.Module):
    """A level of the decoder, with a duplicating shortcut around it where it makes the video larger."""

    def __init__(self, layers: Sequence[nn.Module], stride: Stride):
        super().__init__()
        self.upsamples = CausalSequential(*layers)
        self.stride = stride

    def forward(self, x_BCTYX: Tensor, state: State | None = None) -> Tensor:
        y_BCTYX: Tensor = self.upsamples(x_BCTYX, state)
        if self.stride == (1, 1):
            return y_BCTYX
        is_first = starts_video(self, state)
        return y_BCTYX + duplicate_up(x_BCTYX, y_BCTYX.shape[1], self.stride, starts_video=is_first)


STATEFUL = (CausalConv3d, ResidualBlock, Head, Downsample, Upsample, CausalSequential, DownLevel, UpLevel)


def level_strides(in_time: Sequence[bool]) -> list[Stride]:
    """(frames, pixels) by which each level changes the grid: all levels but the last resample."""
    return [(2 if doubles else 1, 2) for doubles in in_time] + [(1, 1)]


def residual_blocks(in_dim: int, out_dim: int, count: int) -> list[nn.Module]:
    return [ResidualBlock(a, b) for a, b in pairwise([in_dim] + [out_dim] * count)]


def middle(dim: int) -> CausalSequential:
    return CausalSequential(ResidualBlock(dim, dim), AttentionBlock(dim), ResidualBlock(dim, dim))


class Encoder3d(nn.Module):
    def __init__(self, config: VAEConfig):
        super().__init__()
        dims = [config.dim * mult for mult in (1, *config.dim_mult)]
        levels: list[nn.Module] = []
        for (in_dim, out_dim), stride in zip(pairwise(dims), level_strides(config.temporal_downsample), strict=True):
            layers = residual_blocks(in_dim, out_dim, config.num_res_blocks)
            if stride != (1, 1):
                layers.append(Downsample(out_dim, in_time=stride[0] > 1))
            levels += [DownLevel(layers, stride)] if config.has_level_shortcuts else layers
        self.conv1 = CausalConv3d(config.pixel_dim, dims[0], 3)
        self.downsamples = CausalSequential(*levels)
        self.middle = middle(dims[-1])
        self.head = Head(dims[-1], 2 * config.z_dim)

    def forward(self, x_BCTYX: Tensor, state: State | None = None) -> Tensor:
        # One loop: a chain of calls would hold each one's input, whole frames of many channels, until the next returns.
        for layer in (self.conv1, *self.downsamples, *self.middle, self.head):
            x_BCTYX = run(layer, x_BCTYX, state)
        return x_BCTYX


class Decoder3d(nn.Module):
    def __init__(self, config: VAEConfig):
        super().__init__()
        dims = [(config.decoder_dim or config.dim) * mult for mult in config.dim_mult[::-1]]
        levels: list[nn.Module] = []
        in_dim = dims[0]
        for out_dim, stride in zip(dims, level_strides(config.temporal_downsample[::-1]), strict=True):
            layers = residual_blocks(in_dim, out_dim, config.num_res_blocks + 1)
            in_dim = out_dim if config.has_level_shortcuts else out_dim // 2
            if stride != (1, 1):
                layers.append(Upsample(out_dim, in_dim, in_time=stride[0] > 1))
            levels += [UpLevel(layers, stride)] if config.has_level_shortcuts else layers
        self.conv1 = CausalConv3d(config.z_dim, dims[0], 3)
        self.middle = middle(dims[0])
        self.upsamples = CausalSequential(*levels)
        self.head = Head(dims[-1], config.pixel_dim)

    def forward(self, z_BZTYX: Tensor, state: State | None = None) -> Tensor:
        for layer in (self.conv1, *self.middle, *self.upsamples, self.head):  # one loop, as in the encoder
            z_BZTYX = run(layer, z_BZTYX, state)
        return z_BZTYX


class WanVAE(nn.Module):
    """Pixels to normalised latents and back.

    `encode` and `decode` are what users call; `moments` and `reconstruct` are their differentiable, unnormalised
    halves, used in training.
    """

    def __init__(self, config: VAEConfig):
        super().__init__()
        self.config = config
        self.encoder = Encoder3d(config)
        self.conv1 = CausalConv3d(2 * config.z_dim, 2 * config.z_dim, 1)
        self.conv2 = CausalConv3d(config.z_dim, config.z_dim, 1)
        self.decoder = Decoder3d(config)

    def moments(self, video_BCTYX: Tensor, state: State | None = None) -> tuple[Tensor, Tensor]:
        """Mean and log-variance of the posterior, [B, Z, 1 + (T - 1) / 4, Y / S, X / S] each, unnormalised."""
        patches = channels_last(patchify(video_BCTYX, self.config.patch_size))
        mean, log_variance = self.conv1(self.encoder(patches, state)).chunk(2, dim=1)
        return mean, log_variance

    def reconstruct(self, z_BZTYX: Tensor, state: State | None = None) -> Tensor:
        """Pixels from unnormalised latents, not clamped: a clamped decoder has no gradient where it saturates."""
        return unpatchify(self.decoder(self.conv2(channels_last(z_BZTYX)), state), self.config.patch_size)

    def encode(self, video_BCTYX: Tensor, chunk: int = 1) -> Tensor:
        """Normalised posterior means of a video: `encode_stream` of it, joined.

        Args:
            video_BCTYX: [B, 3, T, Y, X] in [-1, 1], T = 4n + 1, Y and X multiples of S.
            chunk: latent frames worked on at a time; memory grows with it, the result does not depend on it.

        Returns:
            [B, Z, 1 + (T - 1) / 4, Y / S, X / S] in the dtype of the weights.

        Raises:
            ValueError: T is not 4n + 1, or Y or X is not a multiple of S, or chunk < 1.
        """
        check_num_frames(video_BCTYX.shape[2], self.config.temporal_stride)
        return torch.cat(list(self.encode_stream([video_BCTYX], chunk)), dim=2)

    def decode(self, z_BZTYX: Tensor, chunk: int = 1) -> Tensor:
        """The video of normalised latents, [B, 3, 1 + 4 (T - 1), S Y, S X] in [-1, 1]; `chunk` as in `encode`."""
        return torch.cat(list(self.decode_stream([z_BZTYX], chunk)), dim=2)

    @torch.no_grad()
    def encode_stream(self, frames: Iterable[Tensor], chunk: int = 1) -> Iterator[Tensor]:
        """Normalised latents of a video that comes piece by piece, as soon as `chunk` of them are complete.

        Memory does not grow with the length of the video, and how it is cut into pieces changes no bit.

        Args:
            frames: pieces [B, 3, t, Y, X] in [-1, 1], any t >= 1 each, on any device.
            chunk: as in `encode`. The first group of frames is 1 + 4 (chunk - 1) long, later ones 4 chunk.

        Yields:
            [B, Z, chunk, Y / S, X / S] in the dtype and on the device of the weights; the last may be shorter.

        Raises:
            ValueError: the stream is empty, ends in the middle of a latent (its length is not 4n + 1) or changes its
                size, or Y or X is not a multiple of S, or chunk < 1.
        """
        stride, space = self.config.temporal_stride, self.config.spatial_stride
        first, later = 1 + stride * (check_chunk(chunk) - 1), stride * chunk
        mean, std = self.statistics("mean"), self.statistics("std")
        state = State()
        num_frames = 0
        for group in regroup(frames, channels=3, first=first, later=later):
            check_sides(group.shape[3], group.shape[4], space)
            num_frames += group.shape[2]
            whole = group.shape[2] - (num_frames - 1) % stride
            if whole:
                yield (self.moments(group[:, :, :whole].to(mean), state)[0] - mean) / std
        check_num_frames(num_frames, stride)

    @torch.no_grad()
    def decode_stream(self, latents: Iterable[Tensor], chunk: int = 1) -> Iterator[Tensor]:
        """The frames of normalised latents that come piece by piece, as soon as `chunk` of them are there.

        Memory does not grow with the length of the video, and how it is cut into pieces changes no bit.

        Args:
            latents: pieces [B, Z, t, Y, X], any t >= 1 each, on any device.
            chunk: latent frames worked on at a time.

        Yields:
            [B, 3, 4 chunk, S Y, S X] in [-1, 1], 3 frames fewer the first time; the last may be shorter.

        Raises:
            ValueError: the stream is empty, changes its size, or has not Z channels; chunk < 1.
        """
        mean, std = self.statistics("mean"), self.statistics("std")
        state = State()
        chunk = check_chunk(chunk)
        for group in regroup(latents, channels=self.config.z_dim, first=chunk, later=chunk):
            yield self.reconstruct(group.to(mean) * std + mean, state).clamp_(-1, 1)

    def statistics(self, which: str) -> Tensor:
        """The per-channel latent mean or deviation, [1, Z, 1, 1, 1]."""
        values = self.config.latents_mean if which == "mean" else self.config.latents_std
        return torch.tensor(values, dtype=self.dtype, device=self.conv2.weight.device).view(1, -1, 1, 1, 1)

    @property
    def dtype(self) -> torch.dtype:
        return self.conv2.weight.dtype
