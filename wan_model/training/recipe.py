"""Training recipes: TOML files under `recipes/`, read into frozen dataclasses; unknown keys are errors."""

import tomllib
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal, TypeVar

Data = TypeVar("Data")


@dataclass(frozen=True)
class Stage:
    """One stretch of training at one clip shape; the learning rate warms up linearly, then decays as a cosine.

    trains "decoder" leaves a VAE's encoder as it is, so that latents made meanwhile stay valid.
    """

    name: str
    num_steps: int
    batch_size: int
    num_frames: int
    size: int
    learning_rate: float
    num_warmup_steps: int = 100
    final_rate: float = 0.1
    trains: Literal["all", "decoder"] = "all"


@dataclass(frozen=True)
class Recipe:
    """What to train, on what, for how long. Loss weights that do not concern the `kind` are ignored.

    kind "vae": weights of L1, squared error, spatial gradients, temporal differences and KL divergence.
    start "model" goes on from the weights in the model directory, with a fresh optimiser: more training, fine-tuning.
    muon: where not 0, the weight matrices of the DiT's blocks are trained by Muon at `muon` times the learning rate,
    everything else by AdamW. text_rate: the text encoder's learning rate as a share of the others'.

    kind "dit": flow matching; noise levels are logit-normal with `logit_mean` and `logit_std`; a caption is dropped
    with probability `drop_caption`, which is what makes classifier-free guidance possible.
    """

    kind: Literal["vae", "dit"]
    preset: str
    stages: tuple[Stage, ...]
    start: Literal["scratch", "model"] = "scratch"
    seed: int = 0
    betas: tuple[float, float] = (0.9, 0.95)
    weight_decay: float = 1e-3
    muon: float = 0.0
    text_rate: float = 1.0
    clip_norm: float = 1.0
    ema_decay: float = 0.999
    save_every_s: float = 120.0
    l1: float = 3.0
    squared: float = 6.0
    edges: float = 3.0
    motion: float = 3.0
    kl: float = 3e-4
    num_clips: int = 0
    two_things: float = 0.2
    logit_mean: float = 0.0
    logit_std: float = 1.0
    drop_caption: float = 0.1


def load_recipe(path: Path) -> Recipe:
    """Reads a recipe; raises ValueError naming the file and the key that is unknown or missing."""
    try:
        table = tomllib.loads(path.read_text())
    except tomllib.TOMLDecodeError as error:
        raise ValueError(f"[train] {path} must be a TOML recipe, got a syntax error: {error}") from None
    stages = tuple(build(Stage, stage, path) for stage in table.pop("stages", []))
    if not stages:
        raise ValueError(f"[train] {path} must have at least one [[stages]] table, got none")
    return build(Recipe, {**table, "stages": stages}, path)


def build(kind: type[Data], table: dict[str, Any], path: Path) -> Data:
    known = {field.name for field in fields(kind)}  # type: ignore[arg-type]
    if unknown := sorted(set(table) - known):
        raise ValueError(f"[train] {path} must use keys of {kind.__name__}, got unknown {', '.join(unknown)}")
    try:
        return kind(**{key: tuple(value) if isinstance(value, list) else value for key, value in table.items()})
    except TypeError as error:
        raise ValueError(f"[train] {path}: {kind.__name__} is incomplete: {error}") from None
