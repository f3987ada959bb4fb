"""The training loop: the same for every task, resumable at any step, safe to interrupt.

A task brings the model, the loss of a step and the export; all randomness of a step comes from (seed, stage, step), so
a resumed run sees the data it would have seen.
"""

import json
import math
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

import torch
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from torch import Tensor, nn

from wan_model.training.recipe import Recipe, Stage, load_recipe
from wan_model.training.state import TrainState

LOG_EVERY = 20


class Task(Protocol):
    """What the loop needs to know of the thing it trains."""

    @property
    def model(self) -> nn.Module: ...

    def begin_stage(self, model: nn.Module, stage: Stage) -> None:
        """Changes the weights that the stage starts from in place, as the stage demands."""

    def loss(self, stage: Stage, key: str) -> tuple[Tensor, dict[str, float]]:
        """The loss of one step and what to log; `key` seeds everything random in it."""

    def validate(self, model: nn.Module, stage: Stage) -> dict[str, float]:
        """Figures of merit of `model` on clips that training never sees."""

    def export(self, model: nn.Module) -> None:
        """Writes the weights for use."""


def learning_rate(stage: Stage, step: int) -> float:
    """Linear warm-up, then half a cosine down to `final_rate` of the peak."""
    warm = min(1.0, (step + 1) / max(1, stage.num_warmup_steps))
    cosine = 0.5 * (1 + math.cos(math.pi * step / stage.num_steps))
    return stage.learning_rate * warm * (stage.final_rate + (1 - stage.final_rate) * cosine)


def make_optimizers(model: nn.Module, recipe: Recipe) -> tuple[torch.optim.Optimizer, ...]:
    """AdamW, and Muon for the matrices of the DiT's blocks where the recipe asks for it.

    A group's `scale` multiplies the stage's learning rate. Muon: Jordan et al. 2024, with updates as large as AdamW's.

    The text encoder wants a small rate (`text_rate`): umT5 does not divide attention scores by sqrt(H), so its queries
    start out small, 0.016, and a step of 2e-3 is an eighth of that. At the full rate scores reached 500 within 6,000
    steps, each head saw one token whatever the order of words, and a caption with the colours of thing and ground
    swapped was as good as the right one to four digits (loss at sigma 0.95, 32 held-out images). Begun anew at 0.15 of
    the rate: 0.30 against 0.22 after 130 steps.
    """
    matrices: list[nn.Parameter] = []
    text: list[nn.Parameter] = []
    rest: list[nn.Parameter] = []
    for name, weight in model.named_parameters():
        is_text = name.startswith("text_encoder.")
        is_matrix = weight.ndim == 2 and "blocks." in name and not is_text
        (text if is_text else matrices if is_matrix and recipe.muon else rest).append(weight)
    groups = [{"params": rest, "scale": 1.0}, {"params": text, "scale": recipe.text_rate}]
    adamw = torch.optim.AdamW(groups, lr=0.0, betas=recipe.betas, weight_decay=recipe.weight_decay)
    if not matrices:
        return (adamw,)
    muon = torch.optim.Muon(matrices, lr=0.0, weight_decay=recipe.weight_decay, adjust_lr_fn="match_rms_adamw")
    muon.param_groups[0]["scale"] = recipe.muon
    return (adamw, muon)


def train(recipe_path: Path, output: Path | None = None, *, resume: bool = True, assets: Path | None = None) -> Path:
    """Trains a recipe to its end and exports the averaged weights.

    Args:
        recipe_path: a TOML file, see `recipes/`.
        output: the run's folder (state, log); default `runs/<recipe name>`.
        resume: go on from the state in `output` where there is one; otherwise begin again.
        assets: the model directory to export to, where a DiT finds its VAE; default `<preset>` beside `output`.

    Returns:
        The folder exported to. Ctrl-C saves the state before it stops.
    """
    recipe = load_recipe(recipe_path)
    output = output or Path("runs") / recipe_path.stem
    output.mkdir(parents=True, exist_ok=True)
    assets = assets or output.parent / recipe.preset
    task = make_task(recipe, output, assets)
    state = TrainState.start(task.model, make_optimizers(task.model, recipe))
    if resume and (output / "state.pt").exists():
        state.load(output / "state.pt")
    try:
        for index in range(state.stage, len(recipe.stages)):
            run_stage(task, state, recipe, index, output)
    except KeyboardInterrupt:
        state.save(output / "state.pt")
        raise
    task.export(state.ema)
    return assets


def make_task(recipe: Recipe, output: Path, assets: Path) -> Task:
    torch.manual_seed(recipe.seed)
    if recipe.kind == "vae":
        from wan_model.training.vae import VAETask

        return VAETask(recipe, assets)
    from wan_model.training.dit import DiTTask

    return DiTTask(recipe, output, assets)


def run_stage(task: Task, state: TrainState, recipe: Recipe, index: int, output: Path) -> None:
    stage = recipe.stages[index]
    if state.step == 0:
        task.begin_stage(state.ema, stage)
        state.begin_stage()
        note(state, output, stage, {"event": "begin", **task.validate(state.ema, stage)})
    last_save = last_step = time.monotonic()
    with progress_bar() as progress:
        bar = progress.add_task(f"{recipe.kind} {stage.name}", total=stage.num_steps, completed=state.step, loss="")
        while state.step < stage.num_steps:
            metrics = take_step(task, state, recipe, stage, f"{recipe.seed}/{index}/{state.step}")
            now = time.monotonic()
            state.elapsed_s, last_step = state.elapsed_s + now - last_step, now
            progress.update(bar, completed=state.step, loss=f"loss {metrics['loss']:.4f}")
            if state.step % LOG_EVERY == 0:
                note(state, output, stage, metrics)
            if now - last_save > recipe.save_every_s:
                state.save(output / "state.pt")
                last_save = now
    note(state, output, stage, {"event": "end", **task.validate(state.ema, stage)})
    state.stage, state.step = index + 1, 0
    state.save(output / "state.pt")


def take_step(task: Task, state: TrainState, recipe: Recipe, stage: Stage, key: str) -> dict[str, float]:
    loss, metrics = task.loss(stage, key)
    state.model.zero_grad(set_to_none=True)
    loss.backward()
    norm = nn.utils.clip_grad_norm_(state.model.parameters(), recipe.clip_norm)
    if not torch.isfinite(norm):
        raise RuntimeError(
            f"[train] gradients must be finite, got norm {norm.item()} at step {state.step} of {stage.name}"
        )
    for optimizer in state.optimizers:
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(stage, state.step) * group["scale"]
        optimizer.step()
    state.step += 1
    # The average forgets its random start quickly: early on it spans about a tenth of the steps so far.
    state.update_ema(min(recipe.ema_decay, (1 + state.step) / (10 + state.step)))
    return {"loss": loss.item(), "grad_norm": norm.item(), **metrics}


def note(state: TrainState, output: Path, stage: Stage, metrics: Mapping[str, float | str]) -> None:
    """Appends one line to the log, in the state and in `log.jsonl`."""
    place: dict[str, float | str] = {"stage": stage.name, "step": state.step, "elapsed_s": round(state.elapsed_s, 1)}
    line = place | {name: round(v, 6) if isinstance(v, float) else v for name, v in metrics.items()}
    state.log.append(line)
    with (output / "log.jsonl").open("a") as file:
        file.write(json.dumps(line) + "\n")


def progress_bar() -> Progress:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    return Progress(*columns, TimeRemainingColumn(), TextColumn("{task.fields[loss]}"), refresh_per_second=1)
