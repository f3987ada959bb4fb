"""Every published Wan model, and the tiny one we train ourselves, as data.

A preset is a `ModelConfig`: the three networks, and the sampling defaults its authors recommend. Numbers come from
the official repositories (Wan2.1 at 9737cba, Wan2.2 at 42bf4cf) and from the released `config.json` files.
"""

from dataclasses import dataclass
from typing import Literal

LatentStatistics = tuple[float, ...]

ModelType = Literal["t2v", "i2v", "flf2v", "vace", "ti2v"]


@dataclass(frozen=True)
class DiTConfig:
    """The diffusion transformer. `in_dim` counts the latent channels plus whatever conditioning is concatenated."""

    dim: int
    ffn_dim: int
    num_heads: int
    num_layers: int
    in_dim: int = 16
    out_dim: int = 16
    text_dim: int = 4096
    text_len: int = 512
    freq_dim: int = 256
    patch_size: tuple[int, int, int] = (1, 2, 2)
    eps: float = 1e-6
    has_image_cross_attention: bool = False
    num_image_positions: int = 0
    vace_layers: tuple[int, ...] = ()
    vace_in_dim: int = 0

    @property
    def head_dim(self) -> int:
        return self.dim // self.num_heads


@dataclass(frozen=True)
class VAEConfig:
    """A causal 3D VAE. `latents_mean` and `latents_std` normalise each latent channel.

    dim: channels of the encoder's first level, and of the decoder's last unless `decoder_dim` says otherwise.
    patch_size: sides of the squares of pixels that are folded into channels before the encoder.
    has_level_shortcuts: every level has a shortcut around it, and upsamplers keep their channels instead of halving.
    """

    dim: int
    latents_mean: LatentStatistics
    latents_std: LatentStatistics
    z_dim: int = 16
    dim_mult: tuple[int, ...] = (1, 2, 4, 4)
    num_res_blocks: int = 2
    temporal_downsample: tuple[bool, ...] = (False, True, True)
    decoder_dim: int | None = None
    patch_size: int = 1
    has_level_shortcuts: bool = False

    @property
    def temporal_stride(self) -> int:
        return 2 ** sum(self.temporal_downsample)

    @property
    def spatial_stride(self) -> int:
        return self.patch_size * 2 ** (len(self.dim_mult) - 1)

    @property
    def pixel_dim(self) -> int:
        """Channels of a patch: the colours of each of its pixels."""
        return 3 * self.patch_size**2


@dataclass(frozen=True)
class TextEncoderConfig:
    """The umT5 encoder; attention width is `num_heads * head_dim`."""

    vocab_size: int = 256384
    dim: int = 4096
    ffn_dim: int = 10240
    num_heads: int = 64
    head_dim: int = 64
    num_layers: int = 24
    num_buckets: int = 32
    max_distance: int = 128
    eps: float = 1e-6


@dataclass(frozen=True)
class SamplingDefaults:
    """What `generate` uses when the caller does not say. Sizes are (width, height) in pixels."""

    size: tuple[int, int]
    num_frames: int
    fps: int
    num_steps: int
    shift: float
    guidance_scale: float
    negative_prompt: str = ""


@dataclass(frozen=True)
class ModelConfig:
    """One released model: its networks, its sampling defaults, and what its weights weigh."""

    name: str
    model_type: ModelType
    dit: DiTConfig
    vae: VAEConfig
    text: TextEncoderConfig
    sampling: SamplingDefaults
    num_experts: int = 1
    expert_boundary: float = 0.0


WAN21_LATENTS_MEAN: LatentStatistics = (
    -0.7571, -0.7089, -0.9113, 0.1075, -0.1745, 0.9653, -0.1517, 1.5508,
    0.4134, -0.0715, 0.5517, -0.3632, -0.1922, -0.9497, 0.2503, -0.2921,
)  # fmt: skip
WAN21_LATENTS_STD: LatentStatistics = (
    2.8184, 1.4541, 2.3275, 2.6558, 1.2196, 1.7708, 2.6052, 2.0743,
    3.2687, 2.1526, 2.8652, 1.5579, 1.6382, 1.1253, 2.8251, 1.9160,
)  # fmt: skip
WAN22_LATENTS_MEAN: LatentStatistics = (
    -0.2289, -0.0052, -0.1323, -0.2339, -0.2799, 0.0174, 0.1838, 0.1557,
    -0.1382, 0.0542, 0.2813, 0.0891, 0.1570, -0.0098, 0.0375, -0.1825,
    -0.2246, -0.1207, -0.0698, 0.5109, 0.2665, -0.2108, -0.2158, 0.2502,
    -0.2055, -0.0322, 0.1109, 0.1567, -0.0729, 0.0899, -0.2799, -0.1230,
    -0.0313, -0.1649, 0.0117, 0.0723, -0.2839, -0.2083, -0.0520, 0.3748,
    0.0152, 0.1957, 0.1433, -0.2944, 0.3573, -0.0548, -0.1681, -0.0667,
)  # fmt: skip
WAN22_LATENTS_STD: LatentStatistics = (
    0.4765, 1.0364, 0.4514, 1.1677, 0.5313, 0.4990, 0.4818, 0.5013,
    0.8158, 1.0344, 0.5894, 1.0901, 0.6885, 0.6165, 0.8454, 0.4978,
    0.5759, 0.3523, 0.7135, 0.6804, 0.5833, 1.4146, 0.8986, 0.5659,
    0.7069, 0.5338, 0.4889, 0.4917, 0.4069, 0.4999, 0.6866, 0.4093,
    0.5709, 0.6065, 0.6415, 0.4944, 0.5726, 1.2042, 0.5458, 1.6887,
    0.3971, 1.0600, 0.3943, 0.5537, 0.5444, 0.4089, 0.7468, 0.7744,
)  # fmt: skip

WAN21_VAE = VAEConfig(dim=96, latents_mean=WAN21_LATENTS_MEAN, latents_std=WAN21_LATENTS_STD)
WAN22_VAE = VAEConfig(
    dim=160, decoder_dim=256, z_dim=48, patch_size=2, has_level_shortcuts=True,
    latents_mean=WAN22_LATENTS_MEAN, latents_std=WAN22_LATENTS_STD,
)  # fmt: skip
UMT5_XXL = TextEncoderConfig()
DIT_1_3B = DiTConfig(dim=1536, ffn_dim=8960, num_heads=12, num_layers=30)
DIT_14B = DiTConfig(dim=5120, ffn_dim=13824, num_heads=40, num_layers=40)
DIT_5B = DiTConfig(dim=3072, ffn_dim=14336, num_heads=24, num_layers=30, in_dim=48, out_dim=48)

TINY_VAE = VAEConfig(dim=16, dim_mult=(1, 2, 3, 3), num_res_blocks=1, latents_mean=(0.0,) * 16, latents_std=(1.0,) * 16)
TINY_TEXT = TextEncoderConfig(vocab_size=128, dim=128, ffn_dim=256, num_heads=4, head_dim=32, num_layers=2)
TINY_DIT = DiTConfig(dim=256, ffn_dim=608, num_heads=2, num_layers=4, text_dim=128, text_len=32)


def text_to_video(name: str, dit: DiTConfig, sampling: SamplingDefaults) -> ModelConfig:
    return ModelConfig(name, "t2v", dit, WAN21_VAE, UMT5_XXL, sampling)


_PRESETS = (
    # The latent statistics of the tiny VAE are measured when it is trained and come with its weights.
    ModelConfig("tiny", "t2v", TINY_DIT, TINY_VAE, TINY_TEXT, SamplingDefaults((96, 96), 17, 8, 20, 3.0, 4.0)),
    text_to_video("1.3B", DIT_1_3B, SamplingDefaults((832, 480), 81, 16, 50, 8.0, 6.0)),
    text_to_video("14B", DIT_14B, SamplingDefaults((1280, 720), 81, 16, 50, 5.0, 5.0)),
    ModelConfig("5B", "ti2v", DIT_5B, WAN22_VAE, UMT5_XXL, SamplingDefaults((1280, 704), 121, 24, 50, 5.0, 5.0)),
    ModelConfig(
        "A14B", "t2v", DIT_14B, WAN21_VAE, UMT5_XXL, SamplingDefaults((1280, 720), 81, 16, 40, 12.0, 4.0),
        num_experts=2, expert_boundary=0.875,
    ),
)  # fmt: skip
PRESETS: dict[str, ModelConfig] = {model.name: model for model in _PRESETS}


def get_preset(name: str) -> ModelConfig:
    """The preset called `name`; raises ValueError listing the names there are."""
    if name not in PRESETS:
        raise ValueError(f"[config] model must be one of {', '.join(PRESETS)}, got {name!r}")
    return PRESETS[name]
