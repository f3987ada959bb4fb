"""What a model is told besides the noise. Only here may text-to-video differ from its relatives.

Letters: B batch, S text tokens, D text width, C channels, T latent frames, Y latent rows, X latent columns.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from wan_model.config import ModelConfig
from wan_model.settings import Settings, latent_shape
from wan_model.tokenizer import Tokenizer

TEXT_ONLY = ("t2v", "ti2v")


@dataclass(frozen=True)
class Conditioning:
    """Text states of each prompt and of what it is pushed away from: [B, S, D], zeros after the text."""

    context_BSD: Tensor
    negative_context_BSD: Tensor


def check_task(config: ModelConfig) -> None:
    """Raises: ValueError for a model that wants more than text."""
    if config.model_type not in TEXT_ONLY:
        raise ValueError(
            f"[model] must be one that starts from text ({', '.join(TEXT_ONLY)}), got {config.name} "
            f"({config.model_type}); image and video inputs are not built yet"
        )


def encode_prompts(
    text_encoder: nn.Module, tokenizer: Tokenizer, settings: Settings, device: torch.device
) -> Conditioning:
    """Every distinct text is encoded once, prompts and negative prompts in one batch."""
    texts = list(dict.fromkeys(settings.prompts + settings.negative_prompts))
    ids_BS, mask_BS = tokenizer(texts)
    # Columns that are padding for all are dropped: the DiT pads with zeros itself, and the encoder is quadratic in S.
    length = int(mask_BS.sum(1).max())
    states_BSD = text_encoder(ids_BS[:, :length].to(device), mask_BS[:, :length].to(device))
    return Conditioning(
        context_BSD=states_BSD[[texts.index(prompt) for prompt in settings.prompts]],
        negative_context_BSD=states_BSD[[texts.index(prompt) for prompt in settings.negative_prompts]],
    )


def draw_noise(config: ModelConfig, settings: Settings, device: torch.device) -> Tensor:
    """Where sampling starts: [B, C, T, Y, X], standard normal, float32.

    Each video has a generator of its own, so that it does not depend on what else is in the batch; it is a CPU
    generator unless `settings.noise_device` says otherwise, so that a seed means the same on every machine.
    """
    shape = latent_shape(config, settings.size, settings.num_frames)
    return torch.stack([_draw(shape, seed, settings.noise_device) for seed in settings.seeds]).to(device)


def _draw(shape: Sequence[int], seed: int, device: str) -> Tensor:
    generator = torch.Generator(device=device).manual_seed(seed)
    return torch.randn(*shape, generator=generator, device=device)
