"""Training the VAE as the Wan report does: images first, then inflated to clips.

A network trained on single frames has only learned the newest tap of each temporal kernel, because causal padding feeds
zeros to the others. `inflate` sets those others to zero and lets the temporal resamplers copy, so a still clip is
reconstructed exactly as its image was, and training goes on from there instead of from noise.
"""

import dataclasses
from pathlib import Path
from random import Random

import torch
from torch import Tensor, nn

from wan_model.checkpoints import load_vae, save_diffusers
from wan_model.config import VAEConfig, get_preset
from wan_model.training.objective import sample_posterior, vae_terms, weigh
from wan_model.training.recipe import Recipe, Stage
from wan_model.training.world import CANVAS, render, sample_scene
from wan_model.vae import Downsample, Upsample, WanVAE
from wan_model.vae_layers import CausalConv3d, bias_of

NUM_VALIDATION_CLIPS = 8
NUM_STATISTICS_CLIPS = 256


@torch.no_grad()
def init_weights(vae: WanVAE) -> None:
    """Variance-preserving convolutions for single frames, and a posterior that starts narrow.

    With PyTorch's default the flat colours of a frame drown in the posterior's noise: after 160 steps the L1 error was
    0.53 against 0.12 from here.
    """
    for module in vae.modules():
        if isinstance(module, (nn.Conv2d, nn.Conv3d)):
            newest = module.weight[:, :, -1] if isinstance(module, nn.Conv3d) else module.weight
            newest.normal_(std=newest[0].numel() ** -0.5)
            nn.init.zeros_(bias_of(module))
    z_dim = vae.config.z_dim
    vae.conv1.weight[z_dim:] *= 0.1
    bias_of(vae.conv1)[z_dim:] = -5.0


@torch.no_grad()
def inflate(vae: nn.Module) -> None:
    """Makes an image VAE a video VAE that treats every frame of a still clip as the image VAE did."""
    for module in vae.modules():
        if isinstance(module, CausalConv3d):
            module.weight[:, :, :-1] = 0
        if isinstance(module, (Downsample, Upsample)) and module.time_conv is not None:
            conv = module.time_conv
            copies = conv.out_channels // conv.in_channels
            conv.weight[:, :, -1, 0, 0] = torch.eye(conv.in_channels).repeat(copies, 1)
            nn.init.zeros_(bias_of(conv))


def draw_clips(key: str, count: int, num_frames: int, size: int) -> Tensor:
    """`count` clips of the world cut to `size` at random: [B, 3, T, size, size], channels last."""
    rng = Random(key)
    clips = []
    for _ in range(count):
        clip = render(sample_scene(rng, two_things=0.3), rng, num_frames=num_frames)
        y, x = rng.randint(0, CANVAS - size), rng.randint(0, CANVAS - size)
        clips.append(clip[:, :, y : y + size, x : x + size])
    return torch.stack(clips).contiguous(memory_format=torch.channels_last_3d)


def psnr(output: Tensor, target: Tensor) -> float:
    """Peak signal-to-noise ratio in dB of clips in [-1, 1]."""
    return (10 * torch.log10(4 / (output.clamp(-1, 1) - target).square().mean())).item()


class VAETask:
    def __init__(self, recipe: Recipe, assets: Path):
        config = get_preset(recipe.preset).vae
        self.recipe, self.assets = recipe, assets
        if recipe.start == "model":
            self.model = load_vae(assets, dtype=torch.float32)
        else:
            self.model = WanVAE(config)
            init_weights(self.model)

    def begin_stage(self, model: nn.Module, stage: Stage) -> None:
        first_clips = next((s for s in self.recipe.stages if s.num_frames > 1), None)
        if stage is first_clips:
            inflate(model)

    def loss(self, stage: Stage, key: str) -> tuple[Tensor, dict[str, float]]:
        video = draw_clips(key, stage.batch_size, stage.num_frames, stage.size)
        generator = torch.Generator().manual_seed(Random(key).getrandbits(62))
        with torch.set_grad_enabled(stage.trains == "all"):
            mean, log_variance = (moment.float() for moment in self.model.moments(video.bfloat16()))
        log_variance = log_variance.clamp(-20, 10)
        output = self.model.reconstruct(sample_posterior(mean, log_variance, generator).bfloat16()).float()
        terms = vae_terms(output, video, mean, log_variance)
        return weigh(terms, self.recipe), {name: term.item() for name, term in terms.items()}

    @torch.no_grad()
    def validate(self, model: nn.Module, stage: Stage) -> dict[str, float]:
        """PSNR on whole frames, and of the things alone: pixels unlike the corner, where the background is."""
        video = draw_clips("validation", NUM_VALIDATION_CLIPS, stage.num_frames, CANVAS)
        output = model.reconstruct(model.moments(video)[0])  # type: ignore[operator]
        thing = ((video - video[..., :1, :1]).abs().amax(1, keepdim=True) > 0.2).expand_as(video)
        return {"psnr": psnr(output, video), "psnr_things": psnr(output[thing], video[thing])}

    def export(self, model: nn.Module) -> None:
        assert isinstance(model, WanVAE)
        model.config = with_statistics(model)
        save_diffusers(self.assets, vae=model.bfloat16())


@torch.no_grad()
def with_statistics(vae: WanVAE) -> VAEConfig:
    """The VAE's config with the mean and deviation of each latent channel, measured on clips of the world."""
    latents = [vae.moments(draw_clips(f"statistics/{i}", 1, 17, CANVAS))[0] for i in range(NUM_STATISTICS_CLIPS)]
    values = torch.cat(latents).transpose(0, 1).flatten(1)
    mean, std = values.mean(1), values.std(1)
    as_tuple = lambda t: tuple(round(v, 4) for v in t.tolist())  # noqa: E731
    return dataclasses.replace(vae.config, latents_mean=as_tuple(mean), latents_std=as_tuple(std))
