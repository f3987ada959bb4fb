"""Both VAEs against Diffusers' AutoencoderKLWan, random weights, float32."""

from dataclasses import replace

import pytest
import torch

from wan_model.config import WAN21_VAE, WAN22_VAE, VAEConfig
from wan_model.conversion import diffusers_vae_name, write_diffusers_vae
from wan_model.vae import WanVAE

diffusers = pytest.importorskip("diffusers", reason="diffusers is the other side of this parity test")


def unnormalised(config: VAEConfig) -> VAEConfig:
    return replace(config, latents_mean=(0.0,) * config.z_dim, latents_std=(1.0,) * config.z_dim)


NARROW = {"2.1": replace(WAN21_VAE, dim=8), "2.2": replace(WAN22_VAE, dim=8, decoder_dim=12)}
PLAIN = {name: unnormalised(config) for name, config in NARROW.items()}


def random_vae(config: VAEConfig) -> WanVAE:
    torch.manual_seed(0)
    vae = WanVAE(config).eval()
    with torch.no_grad():
        for name, parameter in vae.named_parameters():
            if name.endswith("gamma"):
                parameter.uniform_(0.5, 1.5)
        vae.decoder.head[2].weight.mul_(0.3)  # keeps pixels inside [-1, 1], so that the clamp hides nothing
    return vae


def theirs(config: VAEConfig, name: str) -> str:
    return diffusers_vae_name(name, num_res_blocks=config.num_res_blocks)


def diffusers_twin(vae: WanVAE) -> torch.nn.Module:
    fields = {k: list(v) if isinstance(v, tuple) else v for k, v in write_diffusers_vae(vae.config).items()}
    twin = diffusers.AutoencoderKLWan.from_config(fields).eval()
    twin.load_state_dict({theirs(vae.config, name): tensor for name, tensor in vae.state_dict().items()})
    return twin


def video(config: VAEConfig, num_frames: int) -> torch.Tensor:
    size = 2 * config.spatial_stride, 3 * config.spatial_stride
    return torch.rand(1, 3, num_frames, *size, generator=torch.Generator().manual_seed(1)) * 2 - 1


def latents(config: VAEConfig, num_frames: int) -> torch.Tensor:
    shape = 1, config.z_dim, 1 + (num_frames - 1) // 4, 2, 3
    return torch.randn(shape, generator=torch.Generator().manual_seed(2))


def relative_error(actual: torch.Tensor, expected: torch.Tensor) -> float:
    assert actual.shape == expected.shape
    return ((actual - expected).abs().max() / expected.abs().max()).item()


CHUNKS = {1: [1], 5: [1, 2], 9: [1, 2, 3], 17: [1, 2, 3, 5], 33: [1, 2, 3, 9]}  # latent frames; 33 frames make 9


@pytest.mark.parametrize("num_frames", CHUNKS)
@pytest.mark.parametrize("config", PLAIN.values(), ids=PLAIN)
@torch.no_grad()
def test_encode_equals_diffusers(config, num_frames):
    vae, clip = random_vae(config), video(config, num_frames)
    expected = diffusers_twin(vae).encode(clip).latent_dist.mode()
    for chunk in CHUNKS[num_frames]:
        assert relative_error(vae.encode(clip, chunk=chunk), expected) <= 1e-5
    assert relative_error(vae.moments(clip)[0], expected) <= 1e-5


@pytest.mark.parametrize("num_frames", CHUNKS)
@pytest.mark.parametrize("config", PLAIN.values(), ids=PLAIN)
@torch.no_grad()
def test_decode_equals_diffusers(config, num_frames):
    vae, z = random_vae(config), latents(config, num_frames)
    expected = diffusers_twin(vae).decode(z).sample
    assert expected.abs().max() < 1
    for chunk in CHUNKS[num_frames]:
        assert relative_error(vae.decode(z, chunk=chunk), expected) <= 1e-5
    assert relative_error(vae.reconstruct(z), expected) <= 1e-5


def gradients(model: torch.nn.Module, *outputs: torch.Tensor) -> dict[str, torch.Tensor]:
    """Of a sum in which every output weighs differently."""
    model.zero_grad()
    generator = torch.Generator().manual_seed(3)
    total = sum((out * torch.randn(out.shape, generator=generator).to(out)).sum() for out in outputs)
    total.backward()
    return {name: p.grad for name, p in model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("config", PLAIN.values(), ids=PLAIN)
def test_gradients_of_one_pass_are_as_exact_as_those_of_diffusers(config):
    """The rule of docs/numerics.md, over all parameters at once: the truth is Diffusers' gradient in float64."""
    vae, clip, z = random_vae(config), video(config, 9), latents(config, 9)
    twin = diffusers_twin(vae)

    def their_gradients(dtype: torch.dtype) -> dict[str, torch.Tensor]:
        twin.to(dtype)
        return gradients(twin, twin.encode(clip.to(dtype)).latent_dist.parameters, twin.decode(z.to(dtype)).sample)

    found = gradients(vae, torch.cat(vae.moments(clip), dim=1), vae.reconstruct(z))
    assert found.keys() == dict(vae.named_parameters()).keys()
    same_dtype, truth = their_gradients(torch.float32), their_gradients(torch.float64)
    ours = max(relative_error(gradient, truth[theirs(config, name)]) for name, gradient in found.items())
    bound = 2 * max(relative_error(gradient, truth[name]) for name, gradient in same_dtype.items()) + 1e-6
    assert ours <= bound


@pytest.mark.parametrize(("config", "plain"), zip(NARROW.values(), PLAIN.values(), strict=True), ids=NARROW)
@torch.no_grad()
def test_normalisation_is_the_published_one(config, plain):
    normal, plain = random_vae(config), random_vae(plain)
    mean, std = (torch.tensor(s).view(1, -1, 1, 1, 1) for s in (config.latents_mean, config.latents_std))
    clip, z = video(config, 9), latents(config, 9)
    torch.testing.assert_close(normal.encode(clip), (plain.encode(clip) - mean) / std)
    torch.testing.assert_close(normal.decode(z), plain.decode(z * std + mean))


@pytest.mark.parametrize(("name", "stride"), [("2.1", 8), ("2.2", 16)])
def test_sides_must_be_multiples_of_the_stride(name, stride):
    vae = WanVAE(NARROW[name])
    with pytest.raises(ValueError, match=rf"^\[vae\] .*sides .*\b{stride}\b.* got .*\b{5 * stride}x{stride + 4}"):
        vae.encode(torch.zeros(1, 3, 5, stride + 4, 5 * stride))


@pytest.mark.parametrize(
    ("config", "num_parameters", "num_tensors"), [(WAN21_VAE, 126_892_531, 194), (WAN22_VAE, 704_688_668, 196)]
)
def test_published_widths_have_the_published_size(config, num_parameters, num_tensors):
    with torch.device("meta"):
        state = WanVAE(config).state_dict()
        twin = diffusers_twin_shapes(config)
    assert (sum(tensor.numel() for tensor in state.values()), len(state)) == (num_parameters, num_tensors)
    assert {theirs(config, name): tensor.shape for name, tensor in state.items()} == twin


def diffusers_twin_shapes(config: VAEConfig) -> dict[str, torch.Size]:
    fields = {k: list(v) if isinstance(v, tuple) else v for k, v in write_diffusers_vae(config).items()}
    return {name: tensor.shape for name, tensor in diffusers.AutoencoderKLWan.from_config(fields).state_dict().items()}
