"""The VAE against Diffusers' AutoencoderKLWan, random weights, float32."""

from functools import partial

import pytest
import torch

from wan_model.config import WAN21_LATENTS_MEAN, WAN21_LATENTS_STD, VAEConfig
from wan_model.conversion import diffusers_vae_name
from wan_model.vae import WanVAE

diffusers = pytest.importorskip("diffusers", reason="diffusers is the other side of this parity test")

CONFIG = VAEConfig(dim=8, latents_mean=WAN21_LATENTS_MEAN, latents_std=WAN21_LATENTS_STD)
UNNORMALISED = VAEConfig(dim=8, latents_mean=(0.0,) * 16, latents_std=(1.0,) * 16)


def random_vae(config: VAEConfig) -> WanVAE:
    torch.manual_seed(0)
    vae = WanVAE(config).eval()
    with torch.no_grad():
        for name, parameter in vae.named_parameters():
            if name.endswith("gamma"):
                parameter.uniform_(0.5, 1.5)
        vae.decoder.head[2].weight.mul_(0.3)  # keeps pixels inside [-1, 1], so that the clamp hides nothing
    return vae


def diffusers_twin(vae: WanVAE) -> torch.nn.Module:
    config = vae.config
    twin = diffusers.AutoencoderKLWan(
        base_dim=config.dim, z_dim=config.z_dim, dim_mult=list(config.dim_mult),
        num_res_blocks=config.num_res_blocks, temperal_downsample=list(config.temporal_downsample),
    ).eval()  # fmt: skip
    rename = partial(diffusers_vae_name, num_res_blocks=config.num_res_blocks)
    twin.load_state_dict({rename(name): tensor for name, tensor in vae.state_dict().items()})
    return twin


def video(num_frames: int) -> torch.Tensor:
    return torch.rand(1, 3, num_frames, 16, 24, generator=torch.Generator().manual_seed(1)) * 2 - 1


def latents(num_frames: int) -> torch.Tensor:
    return torch.randn(1, 16, 1 + (num_frames - 1) // 4, 2, 3, generator=torch.Generator().manual_seed(2))


def relative_error(actual: torch.Tensor, expected: torch.Tensor) -> float:
    return ((actual - expected).abs().max() / expected.abs().max()).item()


CHUNKS = {1: [1], 9: [1, 2, 3], 17: [1, 2, 3, 5]}  # latent frames; 17 frames make 5 latents


@pytest.mark.parametrize("num_frames", CHUNKS)
@torch.no_grad()
def test_encode_equals_diffusers(num_frames):
    vae = random_vae(UNNORMALISED)
    expected = diffusers_twin(vae).encode(video(num_frames)).latent_dist.mode()
    for chunk in CHUNKS[num_frames]:
        assert relative_error(vae.encode(video(num_frames), chunk=chunk), expected) <= 1e-5


@pytest.mark.parametrize("num_frames", CHUNKS)
@torch.no_grad()
def test_decode_equals_diffusers(num_frames):
    vae = random_vae(UNNORMALISED)
    expected = diffusers_twin(vae).decode(latents(num_frames)).sample
    assert expected.abs().max() < 1
    for chunk in CHUNKS[num_frames]:
        assert relative_error(vae.decode(latents(num_frames), chunk=chunk), expected) <= 1e-5


@torch.no_grad()
def test_normalisation_is_the_published_one():
    vae, plain = random_vae(CONFIG), random_vae(UNNORMALISED)
    mean, std = (torch.tensor(s).view(1, -1, 1, 1, 1) for s in (WAN21_LATENTS_MEAN, WAN21_LATENTS_STD))
    torch.testing.assert_close(vae.encode(video(9)), (plain.encode(video(9)) - mean) / std)
    torch.testing.assert_close(vae.decode(latents(9)), plain.decode(latents(9) * std + mean))
