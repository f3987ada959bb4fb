"""A model small enough to sample in a second, with random weights."""

import dataclasses
from pathlib import Path

import torch

from wan_model.checkpoints import save_diffusers, save_official
from wan_model.config import DiTConfig, ModelConfig, TextEncoderConfig, VAEConfig, get_preset
from wan_model.dit import DiT
from wan_model.pipeline import Pipeline
from wan_model.text_encoder import TextEncoder
from wan_model.tokenizer import Tokenizer, build_word_tokenizer
from wan_model.vae import WanVAE

WORDS = ["a", "red", "green", "blue", "circle", "square", "moves", "right", "left", "over", "the", "background"]

SMALL = dataclasses.replace(
    get_preset("tiny"),
    name="small",
    dit=DiTConfig(dim=48, ffn_dim=64, num_heads=2, num_layers=2, text_dim=16, text_len=8),
    vae=VAEConfig(dim=4, dim_mult=(1, 1, 1, 1), num_res_blocks=1, latents_mean=(0.0,) * 16, latents_std=(1.0,) * 16),
    text=TextEncoderConfig(vocab_size=32, dim=16, ffn_dim=32, num_heads=2, head_dim=8, num_layers=1),
    sampling=dataclasses.replace(
        get_preset("tiny").sampling, size=(32, 32), num_frames=5, fps=4, num_steps=3, guidance_scale=2.0
    ),
)


def small_pipeline(directory: Path, config: ModelConfig = SMALL) -> Pipeline:
    """`config` with random weights in which every input matters: fresh modules leave the head at zero."""
    torch.manual_seed(0)
    build_word_tokenizer(WORDS, directory)
    dits = tuple(DiT(config.dit).eval() for _ in range(config.num_experts))
    return Pipeline(
        config=config,
        tokenizer=Tokenizer(directory, text_len=config.dit.text_len),
        text_encoder=TextEncoder(config.text).eval(),
        dits=dits,
        vae=WanVAE(config.vae).eval(),
    )


def save_random_model(directory: Path, layout: str, config: ModelConfig | None = None) -> None:
    """Writes `config` (the tiny preset where not given) with random weights as a release directory."""
    pipeline = small_pipeline(directory.with_name(directory.name + "-tokenizer"), config or get_preset("tiny"))
    save = {"official": save_official, "diffusers": save_diffusers}[layout]
    save(
        directory,
        dits=pipeline.dits,
        vae=pipeline.vae,
        text_encoder=pipeline.text_encoder,
        tokenizer=directory.with_name(directory.name + "-tokenizer"),
    )
