"""What one generate call is asked to do: checked as a whole, before anything heavy is loaded. Imports no torch."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

from wan_model.config import ModelConfig
from wan_model.schedules import SolverName

MAX_SEED = 2**63 - 1

# The DiT's position tables end here, along time, rows and columns alike.
MAX_POSITIONS = 1024

NoiseDevice = Literal["cpu", "cuda"]


@dataclass(frozen=True)
class Settings:
    """One run of the sampler, every field decided. Prompts, negative prompts and seeds go by position.

    `noise_device` says whose generator draws the noise; the official code draws it on the GPU.
    """

    prompts: tuple[str, ...]
    negative_prompts: tuple[str, ...]
    seeds: tuple[int, ...]
    size: tuple[int, int]
    num_frames: int
    fps: int
    num_steps: int
    shift: float
    guidance_scale: float
    solver: SolverName
    noise_device: NoiseDevice


def make_settings(
    config: ModelConfig,
    prompts: Sequence[str],
    *,
    negative_prompts: str | Sequence[str] | None = None,
    seed: int | Sequence[int] = 0,
    size: tuple[int, int] | None = None,
    num_frames: int | None = None,
    fps: int | None = None,
    num_steps: int | None = None,
    shift: float | None = None,
    guidance_scale: float | None = None,
    solver: SolverName = "unipc",
    noise_device: NoiseDevice = "cpu",
) -> Settings:
    """Fills what is not given from the model's own defaults, and checks everything.

    Args:
        prompts: at least one, none empty.
        negative_prompts: one for all prompts, or one per prompt.
        seed: in [0, 2**63). One integer s gives prompt i the seed s + i; a list gives each its own.
        size: (width, height) in pixels, multiples of what the VAE and the patch need.
        num_frames: 4n + 1; 1 makes an image.

    Raises: ValueError, one line that says what must hold, what came, and what to do; TypeError where `prompts` is a
        string.
    """
    defaults = config.sampling
    if isinstance(prompts, str):
        raise TypeError("[prompt] prompts must be a list of strings, got one string; put it in a list")
    settings = Settings(
        prompts=tuple(prompts),
        negative_prompts=_spread("negative prompt", negative_prompts, len(prompts), defaults.negative_prompt),
        seeds=_seeds(seed, len(prompts)),
        size=size or defaults.size,
        num_frames=defaults.num_frames if num_frames is None else num_frames,
        fps=defaults.fps if fps is None else fps,
        num_steps=defaults.num_steps if num_steps is None else num_steps,
        shift=defaults.shift if shift is None else shift,
        guidance_scale=defaults.guidance_scale if guidance_scale is None else guidance_scale,
        solver=solver,
        noise_device=noise_device,
    )
    check_settings(config, settings)
    return settings


def check_settings(config: ModelConfig, settings: Settings) -> None:
    """Raises: ValueError for the first thing in `settings` that `config` cannot do."""
    if not settings.prompts:
        raise ValueError("[prompt] at least 1 prompt must be given, got 0")
    for prompt in settings.prompts:
        if not prompt.strip():
            raise ValueError(f"[prompt] must not be empty, got {prompt!r}; say what should be seen")
    check_size(config, settings.size)
    check_num_frames(config, settings.num_frames)
    if settings.solver not in get_args(SolverName):
        raise ValueError(f"[solver] must be one of {', '.join(get_args(SolverName))}, got {settings.solver!r}")
    if settings.noise_device not in get_args(NoiseDevice):
        raise ValueError(f"[noise device] must be cpu or cuda, got {settings.noise_device!r}")
    for name, value, least, most in (
        ("steps", settings.num_steps, 1, 1000),
        ("fps", settings.fps, 1, 240),
        ("guidance", settings.guidance_scale, 0, 1000),
        ("seed", min(settings.seeds), 0, MAX_SEED),
        ("seed", max(settings.seeds), 0, MAX_SEED),
    ):
        if not least <= value <= most:
            raise ValueError(f"[{name}] must be in [{least}, {most}], got {value}")
    if not 0 < settings.shift < math.inf:
        raise ValueError(f"[shift] must be positive, got {settings.shift}; 1 leaves the schedule linear")


def check_size(config: ModelConfig, size: tuple[int, int]) -> None:
    """Raises: ValueError unless both sides are multiples of the VAE's stride times the patch."""
    step_x, step_y = size_steps(config)
    width, height = size
    if width < 1 or height < 1 or width % step_x or height % step_y:
        near = f"{max(step_x, round(width / step_x) * step_x)}x{max(step_y, round(height / step_y) * step_y)}"
        raise ValueError(f"[size] must be multiples of {step_x}x{step_y} pixels, got {width}x{height}; use {near}")
    if width > MAX_POSITIONS * step_x or height > MAX_POSITIONS * step_y:
        most = f"{MAX_POSITIONS * step_x}x{MAX_POSITIONS * step_y}"
        raise ValueError(f"[size] must be at most {most} pixels, got {width}x{height}")


def check_num_frames(config: ModelConfig, num_frames: int) -> None:
    """Raises: ValueError unless num_frames is 4n + 1 (the VAE merges every 4 frames after the first)."""
    stride = temporal_stride(config)
    if num_frames < 1 or num_frames % stride != 1:
        below = max(1, (num_frames - 1) // stride * stride + 1)
        use = f"use {below}" if num_frames < 1 else f"use {below} or {below + stride}"
        raise ValueError(f"[frames] must be {stride}n + 1, got {num_frames}; {use}")
    most = (MAX_POSITIONS - 1) * stride + 1
    if num_frames > most:
        raise ValueError(f"[frames] must be at most {most}, got {num_frames}")


def latent_shape(config: ModelConfig, size: tuple[int, int], num_frames: int) -> tuple[int, int, int, int]:
    """Channels, frames, rows and columns of the latents of one video."""
    width, height = size
    stride = spatial_stride(config)
    num_latents = 1 + (num_frames - 1) // temporal_stride(config)
    return config.dit.out_dim, num_latents, height // stride, width // stride


def num_tokens(config: ModelConfig, size: tuple[int, int], num_frames: int) -> int:
    """Tokens of one video in the DiT: latents divided into patches."""
    grid = latent_shape(config, size, num_frames)[1:]
    return math.prod(n // p for n, p in zip(grid, config.dit.patch_size, strict=True))


def size_steps(config: ModelConfig) -> tuple[int, int]:
    """Width and height must be multiples of these."""
    _, patch_y, patch_x = config.dit.patch_size
    return spatial_stride(config) * patch_x, spatial_stride(config) * patch_y


def spatial_stride(config: ModelConfig) -> int:
    return config.vae.spatial_stride


def temporal_stride(config: ModelConfig) -> int:
    return config.vae.temporal_stride


def _spread(name: str, given: str | Sequence[str] | None, count: int, default: str) -> tuple[str, ...]:
    if given is None or isinstance(given, str):
        return (default if given is None else given,) * count
    if len(given) != count:
        raise ValueError(f"[{name}] must be given once or once per prompt ({count}), got {len(given)}")
    return tuple(given)


def _seeds(seed: int | Sequence[int], count: int) -> tuple[int, ...]:
    if isinstance(seed, int):
        return tuple(range(seed, seed + count))
    if len(seed) != count:
        raise ValueError(f"[seed] must be given once or once per prompt ({count}), got {len(seed)}")
    return tuple(seed)
