"""The DiT against Diffusers' WanTransformer3DModel, random weights, float32."""

import pytest
import torch

from wan_model.config import DiTConfig
from wan_model.conversion import diffusers_dit_name
from wan_model.dit import DiT, distinct_timesteps

diffusers = pytest.importorskip("diffusers", reason="diffusers is the other side of this parity test")

CONFIG = DiTConfig(dim=48, ffn_dim=80, num_heads=2, num_layers=2, text_dim=20, text_len=10, freq_dim=32)
LATENTS = (16, 3, 4, 6)  # channels, frames, rows, columns


def random_dit(config: DiTConfig = CONFIG) -> DiT:
    torch.manual_seed(0)
    dit = DiT(config).eval()
    with torch.no_grad():
        for name, parameter in dit.named_parameters():
            if "norm" in name and name.endswith("weight"):
                parameter.uniform_(0.5, 1.5)
            elif parameter.ndim == 1:
                parameter.normal_(std=0.1)
    return dit


def diffusers_twin(dit: DiT) -> torch.nn.Module:
    config = dit.config
    twin = diffusers.WanTransformer3DModel(
        patch_size=config.patch_size, num_attention_heads=config.num_heads, attention_head_dim=config.head_dim,
        in_channels=config.in_dim, out_channels=config.out_dim, text_dim=config.text_dim, freq_dim=config.freq_dim,
        ffn_dim=config.ffn_dim, num_layers=config.num_layers, eps=config.eps,
    ).eval()  # fmt: skip
    twin.load_state_dict({diffusers_dit_name(name): tensor for name, tensor in dit.state_dict().items()})
    return twin


def inputs(batch: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    latents = torch.randn(batch, *LATENTS, generator=generator)
    return latents, torch.randn(batch, CONFIG.text_len, CONFIG.text_dim, generator=generator)


def relative_error(actual: torch.Tensor, expected: torch.Tensor) -> float:
    return ((actual - expected).abs().max() / expected.abs().max()).item()


@pytest.mark.parametrize("timestep", [0.0, 92.0, 500.0, 999.0])
@torch.no_grad()
def test_equals_diffusers(timestep):
    dit = random_dit()
    latents, context = inputs(batch=2)
    t = torch.tensor([timestep, 7.0])
    expected = diffusers_twin(dit)(latents, t, context, return_dict=False)[0]
    assert relative_error(dit(latents, t, context), expected) <= 1e-5


def test_gradients_equal_diffusers():
    dit = random_dit()
    twin = diffusers_twin(dit)
    latents, context = inputs(batch=2)
    t = torch.tensor([300.0, 7.0])
    cotangent = torch.randn(latents.shape, generator=torch.Generator().manual_seed(3))
    dit(latents, t, context).backward(cotangent)
    twin(latents, t, context, return_dict=False)[0].backward(cotangent)
    expected = dict(twin.named_parameters())
    for name, parameter in dit.named_parameters():
        assert relative_error(parameter.grad, expected[diffusers_dit_name(name)].grad) <= 1e-4, name


@torch.no_grad()
def test_timestep_per_token_equals_diffusers():
    """TI2V form: the tokens of the first frame are clean, all others noisy."""
    dit = random_dit()
    latents, context = inputs(batch=2)
    num_tokens = LATENTS[1] * LATENTS[2] * LATENTS[3] // 4
    t_BL = torch.full((2, num_tokens), 871.0)
    t_BL[:, : num_tokens // LATENTS[1]] = 0
    t_BL[1, -5:] = 333
    expected = diffusers_twin(dit)(latents, t_BL, context, return_dict=False)[0]
    values, index = distinct_timesteps(t_BL)
    assert values.shape == (2, 3)
    assert relative_error(dit(latents, values, context, timestep_index=index), expected) <= 1e-5


@torch.no_grad()
def test_short_context_equals_diffusers_on_zero_padding():
    dit = random_dit()
    latents, context = inputs(batch=1)
    short, t = context[:, :3], torch.tensor([250.0])
    padded = torch.cat([short, torch.zeros_like(context[:, 3:])], dim=1)
    expected = diffusers_twin(dit)(latents, t, padded, return_dict=False)[0]
    assert relative_error(dit(latents, t, short), expected) <= 1e-5


@pytest.mark.parametrize(
    "config",
    [
        DiTConfig(dim=128, ffn_dim=64, num_heads=1, num_layers=1, text_dim=20, text_len=10, freq_dim=256),
        DiTConfig(
            dim=48, ffn_dim=32, num_heads=2, num_layers=1, text_dim=20, text_len=10, freq_dim=32, in_dim=36, out_dim=16
        ),
    ],
    ids=["head_dim_128", "image_channels"],
)
@torch.no_grad()
def test_other_widths_equal_diffusers(config):
    dit = random_dit(config)
    _, context = inputs(batch=1)
    latents = torch.randn(1, config.in_dim, *LATENTS[1:], generator=torch.Generator().manual_seed(2))
    t = torch.tensor([640.0])
    expected = diffusers_twin(dit)(latents, t, context, return_dict=False)[0]
    assert relative_error(dit(latents, t, context), expected) <= 1e-5
