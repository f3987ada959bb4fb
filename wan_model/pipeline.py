"""From prompts to videos: encode the text, draw noise, walk it down the noise levels, decode. The loop exists once.

Letters: B batch, F pixel frames, C channels; T, Y, X frames, rows and columns of the latent grid.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cache, cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from wan_model.checkpoints import load_dit, load_text_encoder, load_vae
from wan_model.conditioning import Conditioning, check_task, draw_noise, encode_prompts
from wan_model.config import PRESETS, ModelConfig, get_preset
from wan_model.dit import DiT
from wan_model.guidance import predict_both
from wan_model.layouts import detect_model, find_tokenizer
from wan_model.plan import estimate_memory, free_bytes
from wan_model.quantize import CODES, LayerError, LayerPlan, Precision, dtype_of, layer_errors, quantize
from wan_model.schedules import NUM_TRAIN_TIMESTEPS, SolverName, make_schedule
from wan_model.settings import NoiseDevice, Settings, check_settings, make_settings
from wan_model.solvers import make_solver
from wan_model.text_encoder import TextEncoder
from wan_model.tokenizer import Tokenizer
from wan_model.vae import WanVAE
from wan_model.vae_plan import TileChoice, VAEPlan, plan_vae
from wan_model.vae_stream import watched_latents
from wan_model.vae_tiles import decode_tiles, whole
from wan_model.video_io import Saved, frames_of, save

TINY_DIRECTORY = Path(__file__).parent / "assets" / "tiny"


class Cancelled(Exception):
    """A callback ended the run by returning False."""


@dataclass(frozen=True)
class StepInfo:
    """What a callback sees of a step: `step` counts from 1, `timestep` runs down from 1000.

    `latents_BCTYX` is what the model saw, `denoised_BCTYX` the clean latents that it expected there.
    """

    step: int
    num_steps: int
    timestep: int
    latents_BCTYX: Tensor
    denoised_BCTYX: Tensor
    decode: Callable[[Tensor], Tensor]

    def preview(self) -> Tensor:
        """The first frame of the expected videos, [B, 3, 1, rows, columns] in [-1, 1]; decoded only when asked for."""
        return self.decode(self.denoised_BCTYX[:, :, :1])


Callback = Callable[[StepInfo], bool | None]


@dataclass(frozen=True)
class Pipeline:
    """The networks of one model, in place. `dits` holds one transformer, or the high-noise expert and the other."""

    config: ModelConfig
    tokenizer: Tokenizer
    text_encoder: TextEncoder
    dits: tuple[DiT, ...]
    vae: WanVAE
    precision: Precision = "fp32"

    @property
    def device(self) -> torch.device:
        return self.dits[0].patch_embedding.weight.device

    @property
    def dtype(self) -> torch.dtype:
        return self.dits[0].patch_embedding.weight.dtype

    def dit_for(self, timestep: int) -> DiT:
        """The expert of a noise level: the first at or above the boundary, the last below it."""
        return self.dits[0] if timestep >= self.config.expert_boundary * NUM_TRAIN_TIMESTEPS else self.dits[-1]


def nobody(count: int) -> None:
    """Nobody wants to know."""


@dataclass(frozen=True)
class Result:
    """Videos as latents, [B, Z, T, Y, X] in float32, and the settings that made them.

    Pixels are made when they are asked for: `save` decodes straight into the file, `videos_BCFYX` holds everything.
    """

    latents_BZTYX: Tensor
    vae: WanVAE
    settings: Settings
    model: str
    device: str
    precision: Precision

    @cached_property
    def videos_BCFYX(self) -> Tensor:
        """[B, 3, F, rows, columns] in [-1, 1], float32 on the CPU."""
        return torch.cat([torch.cat(list(self.decode(i)), dim=2) for i in range(len(self.latents_BZTYX))])

    def plan_decoding(self, tile: TileChoice = "auto") -> VAEPlan:
        """How the VAE would best decode one of the videos with the memory that is free now; see `plan_vae`."""
        width, height = self.settings.size
        free = free_bytes(self.latents_BZTYX.device)
        num_frames = self.settings.num_frames
        return plan_vae(self.vae, height, width, free, direction="decode", tile=tile, num_frames=num_frames)

    def decode(
        self, index: int, plan: VAEPlan | None = None, advance: Callable[[int], None] = nobody
    ) -> Iterator[Tensor]:
        """The pixels of video `index`, [1, 3, f, rows, columns] each, as they come; whole frames without a plan."""
        latents = self.latents_BZTYX[index : index + 1]
        tiling, chunk = (plan.tiling, plan.chunk) if plan else (whole(*latents.shape[3:]), 1)
        source = watched_latents(lambda: latents.split(1, dim=2), advance, self.vae.config.temporal_stride)
        return (part.float().cpu() for part in decode_tiles(self.vae, source, tiling, chunk))

    def record(self, index: int) -> dict[str, Any]:
        """Everything needed to make video `index` again, as plain data."""
        shared = asdict(self.settings)
        own = {name: shared.pop(f"{name}s")[index] for name in ("prompt", "negative_prompt", "seed")}
        return {**own, **shared, "model": self.model, "device": self.device, "precision": self.precision}

    def save(
        self,
        path: str | Path,
        *,
        plan: VAEPlan | None = None,
        advance: Callable[[int], None] = nobody,
        **extra: Any,
    ) -> list[Saved]:
        """Decodes each video into a file, with its contact sheet and settings; several get -1, -2, ... after the name.

        An mp4 takes memory for a few frames, however long it is. What stopped it leaves the videos before.
        plan: how to decode, by default what `plan_decoding` says now. advance: told how many more frames have been
            decoded, those of every tile. extra: more entries for the settings file.
        """
        path, count = Path(path), len(self.latents_BZTYX)
        plan = plan or self.plan_decoding()
        stride = self.vae.config.spatial_stride
        rows, columns = (side * stride for side in plan.tiling.tile)
        extra["tile"] = [columns, rows] if plan.tiling.num_tiles > 1 else None
        paths = [path] if count == 1 else [path.with_stem(f"{path.stem}-{i + 1}") for i in range(count)]
        return [
            save(each, frames_of(self.decode(i, plan, advance)), self.settings.fps, {**self.record(i), **extra})
            for i, each in enumerate(paths)
        ]


def find_model(model: str | Path = "tiny", preset: str | None = None) -> tuple[Path, ModelConfig]:
    """Where the weights of `model` lie, and what they are: reads config files only.

    model: "tiny", or the directory of a checkpoint in either layout. preset: which model the directory must hold.
    Raises: FileNotFoundError, ValueError; one line that names the directory or file.
    """
    directory = TINY_DIRECTORY if str(model) == "tiny" else Path(model)
    wanted = None if preset is None else get_preset(preset)
    if not directory.is_dir():
        if str(model) in PRESETS:
            raise FileNotFoundError(f"[model] {model} has no weights in this package; give their directory")
        raise FileNotFoundError(f"[model] must be tiny or the directory of a checkpoint, got {str(model)!r}")
    found = detect_model(directory)
    if wanted is None:
        return directory, found
    if (wanted.dit, wanted.num_experts) != (found.dit, found.num_experts):
        raise ValueError(f"[model] {directory} must hold {preset}, got {found.name}; leave --preset out or change it")
    return directory, replace(wanted, vae=found.vae, text=found.text)


def resolve_device(name: str | None = None) -> torch.device:
    """cpu, cuda or cuda:N, checked against this machine; None takes the GPU where there is one."""
    if name is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    kind, _, index = name.partition(":")
    if kind not in ("cpu", "cuda") or (index and not index.isdecimal()):
        raise ValueError(f"[device] must be cpu, cuda or cuda:N, got {name!r}")
    if kind == "cuda" and int(index or 0) >= torch.cuda.device_count():
        found = f"{torch.cuda.device_count()} GPUs" if torch.version.cuda else "a torch built without CUDA"
        raise ValueError(f"[device] {name} must be present, got {found}; choose cpu")
    return torch.device(name)


def load_pipeline(
    model: str | Path = "tiny",
    *,
    preset: str | None = None,
    precision: Precision | None = None,
    device: torch.device | str | None = None,
) -> Pipeline:
    """Networks of `model` (see `find_model`) on `device`, ready to generate.

    precision: fp32 or bf16 for the DiT and the text encoder, by default fp32 on a CPU and bf16 on a GPU; int8 or fp8
        for the large products of the DiT (see `quantize`) with bf16 for the rest. The VAE is float32.
    Raises: FileNotFoundError, ValueError; one line that names what is missing or wrong.
    """
    directory, config = find_model(model, preset)
    check_task(config)
    place = resolve_device(str(device) if device is not None else None)
    precision = precision or default_precision(place)
    dtype = dtype_of(precision)
    pipeline = Pipeline(
        config=config,
        tokenizer=Tokenizer(find_tokenizer(directory), text_len=config.dit.text_len),
        text_encoder=load_text_encoder(directory, config.text, dtype=dtype, device=place),
        dits=tuple(
            load_dit(directory, config.dit, expert=expert, dtype=dtype, device=place)
            for expert in range(config.num_experts)
        ),
        vae=load_vae(directory, config.vae, dtype=torch.float32, device=place),
        precision="bf16" if precision in CODES else precision,
    )
    return to_8bit(pipeline, precision)[0] if precision in CODES else pipeline


def to_8bit(pipeline: Pipeline, precision: Precision) -> tuple[Pipeline, list[LayerPlan]]:
    """The same networks with their DiTs quantised in place, and what each layer now runs."""
    plans = [quantize(dit, precision) for dit in pipeline.dits]
    return replace(pipeline, precision=precision), plans[0]


@torch.no_grad()
def check_layers(pipeline: Pipeline, settings: Settings, precision: Precision) -> list[LayerError]:
    """How far each layer of the first DiT would be off in `precision`, on noise at half the schedule."""
    text = encode_prompts(pipeline.text_encoder, pipeline.tokenizer, settings, pipeline.device)
    latents = draw_noise(pipeline.config, settings, pipeline.device)
    timestep_B = torch.full((len(latents),), NUM_TRAIN_TIMESTEPS / 2, device=latents.device)
    return layer_errors(pipeline.dits[0], precision, latents, timestep_B, text.context_BSD)


def default_precision(device: torch.device) -> Precision:
    return "fp32" if device.type == "cpu" else "bf16"


def generate(
    pipeline: Pipeline,
    prompts: Sequence[str],
    *,
    negative_prompts: str | Sequence[str] | None = None,
    seed: int | Sequence[int] = 0,
    num_steps: int | None = None,
    shift: float | None = None,
    guidance_scale: float | None = None,
    size: tuple[int, int] | None = None,
    num_frames: int | None = None,
    fps: int | None = None,
    solver: SolverName = "unipc",
    noise_device: NoiseDevice = "cpu",
    callback: Callback | None = None,
) -> Result:
    """One video per prompt; what is not given comes from the model's own defaults. See `make_settings`, `sample`."""
    settings = make_settings(
        pipeline.config,
        prompts,
        negative_prompts=negative_prompts,
        seed=seed,
        num_steps=num_steps,
        shift=shift,
        guidance_scale=guidance_scale,
        size=size,
        num_frames=num_frames,
        fps=fps,
        solver=solver,
        noise_device=noise_device,
    )
    return sample(pipeline, settings, callback)


@torch.no_grad()
def sample(pipeline: Pipeline, settings: Settings, callback: Callback | None = None) -> Result:
    """The sampling loop.

    callback: called once per step; returning False ends the run, for which `Cancelled` is raised.
    Numerics: latents and solver in float32, networks in the dtype of their weights.
    Raises: ValueError for settings the model cannot do, Cancelled.
    """
    check_settings(pipeline.config, settings)
    check_task(pipeline.config)
    resolve_device(settings.noise_device)
    text = encode_prompts(pipeline.text_encoder, pipeline.tokenizer, settings, pipeline.device)
    schedule = make_schedule(settings.solver, settings.num_steps, shift=settings.shift)
    solver = make_solver(settings.solver, schedule.sigmas)
    state = solver.init(draw_noise(pipeline.config, settings, pipeline.device))
    is_joint = fits_joint_guidance(pipeline, settings)
    predict = make_predictor(pipeline, text, scale=settings.guidance_scale, is_joint=is_joint)
    for i, timestep in enumerate(schedule.timesteps):
        velocities = predict(state.latents, timestep)
        after = solver.step(state, i, *velocities, guidance_scale=settings.guidance_scale)
        info = StepInfo(i + 1, solver.num_steps, timestep, state.latents, after.denoised[-1], pipeline.vae.decode)
        if callback is not None and callback(info) is False:
            raise Cancelled(f"[generate] cancelled at step {i + 1} of {solver.num_steps}")
        state = after
    return Result(state.latents, pipeline.vae, settings, pipeline.config.name, str(pipeline.device), pipeline.precision)


def make_predictor(
    pipeline: Pipeline, text: Conditioning, *, scale: float, is_joint: bool
) -> Callable[[Tensor, int], tuple[Tensor, Tensor | None]]:
    """The velocities of latents at a timestep under the prompt and, unless `scale` is 1, under the negative one.

    is_joint: run both passes as one batch of twice the size. Each expert reads a context once, when it first needs it.
    """
    contexts = {"positive": text.context_BSD, "negative": text.negative_context_BSD}
    if is_joint and scale != 1:
        contexts["both"] = torch.cat([text.context_BSD, text.negative_context_BSD])
    read_text = cache(lambda dit, which: dit.read_text(contexts[which]))

    def predict(latents_BCTYX: Tensor, timestep: int) -> tuple[Tensor, Tensor | None]:
        dit = pipeline.dit_for(timestep)

        def velocity(which: str) -> Tensor:
            states = read_text(dit, which)
            timestep_B = torch.full((len(states),), float(timestep), device=latents_BCTYX.device)
            return dit(latents_BCTYX.repeat(len(states) // len(latents_BCTYX), 1, 1, 1, 1), timestep_B, states)

        if "both" in contexts:
            positive, negative = velocity("both").chunk(2)
            return positive, negative
        return predict_both(velocity, "positive", "negative", scale=scale)

    return predict


def fits_joint_guidance(pipeline: Pipeline, settings: Settings) -> bool:
    """Whether a forward over twice the batch fits into what is free now, with as much again to spare."""
    batch = 2 * len(settings.prompts)
    needed = estimate_memory(
        pipeline.config, settings.size, settings.num_frames, dtype=pipeline.dtype, batch=batch
    ).forward_peak_bytes
    free = free_bytes(pipeline.device)
    return free is None or 2 * needed < free
