"""Three networks of a few kilobytes with random weights, and what the checkpoint tests do with them."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from wan_model.checkpoints import load_dit, load_text_encoder, load_vae, save_diffusers, save_official
from wan_model.config import DiTConfig, TextEncoderConfig, VAEConfig
from wan_model.dit import DiT
from wan_model.text_encoder import TextEncoder
from wan_model.vae import WanVAE

DIT = DiTConfig(dim=24, ffn_dim=40, num_heads=2, num_layers=2, text_dim=16, text_len=8, freq_dim=16)
VAE = VAEConfig(
    dim=4, dim_mult=(1, 2, 2), num_res_blocks=1, temporal_downsample=(True, False), z_dim=4,
    latents_mean=(0.1, -0.2, 0.3, 0.0), latents_std=(1.0, 2.0, 0.5, 1.5),
)  # fmt: skip
# Shaped as that of Wan 2.2, which the official layout names apart.
VAE_2_2 = replace(VAE, decoder_dim=6, patch_size=2, has_level_shortcuts=True)
TEXT = TextEncoderConfig(vocab_size=30, dim=16, ffn_dim=24, num_heads=2, head_dim=8, num_layers=2)

LOADERS: dict[str, Callable[..., Any]] = {"dits": load_dit, "vae": load_vae, "text_encoder": load_text_encoder}
SAVERS: dict[str, Callable[..., list[Path]]] = {"official": save_official, "diffusers": save_diffusers}


def make_networks() -> dict[str, Any]:
    torch.manual_seed(0)
    return {"dits": DiT(DIT), "vae": WanVAE(VAE), "text_encoder": TextEncoder(TEXT)}


def save(layout: str, directory: Path, networks: dict[str, Any], **options: Any) -> list[Path]:
    """All of `make_networks`, in one layout."""
    return SAVERS[layout](directory, **(networks | {"dits": [networks["dits"]]}), **options)


def assert_same_weights(actual: torch.nn.Module, expected: torch.nn.Module) -> None:
    ours, theirs = actual.state_dict(), expected.state_dict()
    assert ours.keys() == theirs.keys()
    for name, tensor in theirs.items():
        assert ours[name].dtype == tensor.dtype
        assert torch.equal(ours[name], tensor), name


def error_of(call: Callable[..., Any], *arguments: Any, **options: Any) -> str:
    """The message of the ValueError or FileNotFoundError that a call raises; always one line."""
    with pytest.raises((ValueError, FileNotFoundError)) as caught:
        call(*arguments, **options)
    message = str(caught.value)
    assert message.startswith("[")
    assert "\n" not in message
    return message
