"""Training the DiT and its small text encoder together, by flow matching on latents of the captioned world.

The clips are encoded once into a bank; captions are drawn anew each time a clip is used, so the text encoder sees many
wordings, in two languages, of everything it sees.
"""

from pathlib import Path
from random import Random

import torch
from rich.progress import track
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from wan_model.checkpoints import load_dit, load_text_encoder, load_vae, save_diffusers
from wan_model.config import ModelConfig, get_preset
from wan_model.dit import DiT
from wan_model.text_encoder import TextEncoder
from wan_model.tokenizer import Tokenizer, build_word_tokenizer
from wan_model.training.objective import flow_matching_loss, flow_matching_pair, logit_normal_sigmas
from wan_model.training.recipe import Recipe, Stage
from wan_model.training.world import Scene, caption, is_held_out, render, sample_scene, sample_single, vocabulary
from wan_model.vae import WanVAE

NUM_VALIDATION_CLIPS = 32
VALIDATION_SIGMAS = (0.2, 0.4, 0.6, 0.8, 0.95)


def training_scene(index: int, two_things: float) -> tuple[Scene, Random]:
    rng = Random(f"bank/{index}")
    return sample_scene(rng, two_things=two_things), rng


def held_out_scene(index: int) -> tuple[Scene, Random]:
    rng = Random(f"held out/{index}")
    while not is_held_out(scene := sample_single(rng)):
        pass
    return scene, rng


def starting_networks(recipe: Recipe, preset: ModelConfig, assets: Path) -> nn.ModuleDict:
    """The DiT and the text encoder in float32, new or as `assets` has them."""
    if recipe.start == "model":
        dit = load_dit(assets, preset.dit, dtype=torch.float32)
        return nn.ModuleDict({"dit": dit, "text_encoder": load_text_encoder(assets, dtype=torch.float32)}).train()
    dit = DiT(preset.dit)
    dit.init_weights()
    return nn.ModuleDict({"dit": dit, "text_encoder": TextEncoder(preset.text)})


def encode_scenes(vae: WanVAE, scenes: list[tuple[Scene, Random]]) -> Tensor:
    """Normalised latents of one clip per scene, [n, Z, T, Y, X] bfloat16."""
    latents = []
    for scene, rng in track(scenes, "encoding clips", disable=len(scenes) < 500):
        clip = render(scene, rng).unsqueeze(0).contiguous(memory_format=torch.channels_last_3d)
        latents.append(vae.encode(clip, chunk=5))
    return torch.cat(latents).contiguous()


def first_frames(latents: Tensor, stage: Stage) -> Tensor:
    """The latents of a stage's shorter clips: the VAE is causal, so a prefix of a clip has a prefix of its latents."""
    return latents[:, :, : 1 + (stage.num_frames - 1) // 4].float()


class DiTTask:
    """`output` keeps the bank of latents; `assets` must hold the trained VAE and receives the rest of the model."""

    def __init__(self, recipe: Recipe, output: Path, assets: Path):
        preset = get_preset(recipe.preset)
        self.recipe, self.assets = recipe, assets
        build_word_tokenizer(vocabulary(), assets / "tokenizer")
        self.tokenizer = Tokenizer(assets / "tokenizer", text_len=preset.dit.text_len)
        self.model = starting_networks(recipe, preset, assets)
        self.scenes = [training_scene(i, recipe.two_things)[0] for i in range(recipe.num_clips)]
        self.bank, self.validation = self.load_bank(output / "bank.safetensors")

    def load_bank(self, path: Path) -> tuple[Tensor, Tensor]:
        if not path.exists():
            vae = load_vae(self.assets, dtype=torch.bfloat16)
            training = [training_scene(i, self.recipe.two_things) for i in range(self.recipe.num_clips)]
            validation = [held_out_scene(i) for i in range(NUM_VALIDATION_CLIPS)]
            bank = {"training": encode_scenes(vae, training), "validation": encode_scenes(vae, validation)}
            save_file(bank, path.with_suffix(".tmp"))
            path.with_suffix(".tmp").rename(path)
        bank = load_file(path)
        return bank["training"], bank["validation"]

    def begin_stage(self, model: nn.Module, stage: Stage) -> None:
        """Nothing changes between the stages of flow matching but the recipe's numbers."""

    def velocity(self, model: nn.Module, noisy: Tensor, sigmas: Tensor, captions: list[str]) -> Tensor:
        ids, mask = self.tokenizer(captions)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            return model["dit"](noisy, 1000 * sigmas, model["text_encoder"](ids, mask))  # type: ignore[index]

    def loss(self, stage: Stage, key: str) -> tuple[Tensor, dict[str, float]]:
        rng = Random(key)
        chosen = rng.sample(range(len(self.scenes)), stage.batch_size)
        captions = ["" if rng.random() < self.recipe.drop_caption else caption(self.scenes[i], rng) for i in chosen]
        generator = torch.Generator().manual_seed(rng.getrandbits(62))
        latents = first_frames(self.bank[chosen], stage)
        sigmas = logit_normal_sigmas(stage.batch_size, self.recipe.logit_mean, self.recipe.logit_std, generator)
        noise = torch.randn(latents.shape, generator=generator)
        noisy, target = flow_matching_pair(latents, sigmas, noise)
        return flow_matching_loss(self.velocity(self.model, noisy, sigmas, captions), target), {}

    @torch.no_grad()
    def validate(self, model: nn.Module, stage: Stage) -> dict[str, float]:
        """Flow-matching loss at fixed noise levels on held-out scenes."""
        latents = first_frames(self.validation, stage)
        captions = [caption(held_out_scene(i)[0], Random(i)) for i in range(len(latents))]
        noise = torch.randn(latents.shape, generator=torch.Generator().manual_seed(0))
        losses = {}
        for sigma in VALIDATION_SIGMAS:
            sigmas = torch.full((len(latents),), sigma)
            noisy, target = flow_matching_pair(latents, sigmas, noise)
            losses[f"validation {sigma}"] = flow_matching_loss(
                self.velocity(model, noisy, sigmas, captions), target
            ).item()
        return losses | {"validation": sum(losses.values()) / len(losses)}

    def export(self, model: nn.Module) -> None:
        model = model.bfloat16()
        save_diffusers(self.assets, dits=[model["dit"]], text_encoder=model["text_encoder"])  # type: ignore[index]
