"""Does the tiny model show what the prompt says? Forty prompts never trained on, judged by classical vision.

    python -m benchmarks.prompt_control --json benchmarks/results/prompt_control.json
    python -m benchmarks.prompt_control --precision int8 --against fp32

Each prompt describes a held-out scene (see `wan_model.training.world.is_held_out`), three in four in English, the rest
in Chinese. Its video is made with the model's own defaults, written as mp4, read back, and looked at.
"""

import argparse
import json
import tempfile
from dataclasses import asdict
from pathlib import Path
from random import Random
from typing import Any

import torch
from torch import Tensor

from benchmarks.vision import Sighting, look
from wan_model.pipeline import Pipeline, Result, StepInfo, generate, load_pipeline
from wan_model.quantize import PRECISIONS, Precision
from wan_model.training.dit import held_out_scene
from wan_model.training.world import DIRECTIONS, Scene, caption
from wan_model.video_io import atomic_path, read_video

Record = dict[str, Any]
FIRST_SCENE = 1000
BATCH = 8


def expected(scene: Scene) -> Sighting:
    thing = scene.things[0]
    return Sighting(thing.colour, thing.shape, scene.motion, scene.background)


def held_out(count: int) -> tuple[list[Scene], list[str]]:
    """Scenes never trained on, and what asks for them."""
    scenes = [held_out_scene(FIRST_SCENE + i)[0] for i in range(count)]
    return scenes, [caption(scene, Random(i), "zh" if i % 4 == 3 else "en") for i, scene in enumerate(scenes)]


def with_latents(pipeline: Pipeline, prompts: list[str], seeds: list[int]) -> tuple[Result, Tensor]:
    """The videos, and the latents they were decoded from: the last step ends at the clean sample it expects."""
    last: list[Tensor] = []

    def keep(info: StepInfo) -> None:
        last[:] = [info.denoised_BCTYX]

    return generate(pipeline, prompts, seed=seeds, callback=keep), last[0]


def psnr_db(latents: Tensor, wanted: Tensor) -> list[float]:
    """Of each sample, with the span of the wanted values as the peak."""
    spans = (wanted.flatten(1).max(1).values - wanted.flatten(1).min(1).values).square()
    errors = (latents - wanted).square().flatten(1).mean(1)
    return (10 * torch.log10(spans / errors)).tolist()


def measure(model: str, count: int, seed: int, precision: Precision, against: Precision | None = None) -> list[Record]:
    """One row per prompt: what was asked, what was seen; `against`: how near to that precision's latents, too."""
    pipeline = load_pipeline(model, precision=precision)
    other = None if against is None else load_pipeline(model, precision=against)
    scenes, prompts = held_out(count)
    rows: list[Record] = []
    with tempfile.TemporaryDirectory() as folder:
        for start in range(0, count, BATCH):
            batch = prompts[start : start + BATCH]
            seeds = [seed + start + i for i in range(len(batch))]
            result, latents = with_latents(pipeline, batch, seeds)
            distances = None if other is None else psnr_db(latents, with_latents(other, batch, seeds)[1])
            for i, saved in enumerate(result.save(Path(folder) / f"{start}.mp4")):
                seen = look(read_video(saved.video))
                wanted = expected(scenes[start + i])
                row: Record = {"prompt": batch[i], "wanted": asdict(wanted), "seen": asdict(seen)}
                rows.append(row | ({} if distances is None else {"latent_psnr_db": round(distances[i], 2)}))
            print(f"{min(start + BATCH, count)} of {count} prompts", flush=True)
    return rows


def rates(rows: list[Record]) -> dict[str, float]:
    """Share of prompts whose attribute was seen as asked; `direction` counts only prompts that name one."""
    right = {
        name: sum(row["seen"][name] == row["wanted"][name] for row in rows) / len(rows)
        for name in ("colour", "shape", "motion", "background")
    }
    moving = [row for row in rows if row["wanted"]["motion"] in DIRECTIONS]
    right["direction"] = sum(row["seen"]["motion"] == row["wanted"]["motion"] for row in moving) / max(1, len(moving))
    return {name: round(value, 4) for name, value in right.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="tiny", help="tiny, or a model directory that knows the tiny world")
    parser.add_argument("--prompts", type=int, default=40)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--precision", choices=PRECISIONS, default="fp32")
    parser.add_argument("--against", choices=PRECISIONS, help="also compare latents with this precision's")
    parser.add_argument("--json", type=Path, help="write rates and rows here")
    options = parser.parse_args()
    rows = measure(options.model, options.prompts, options.seed, options.precision, options.against)
    for row in rows:
        pairs = ((name, row["seen"][name]) for name in row["wanted"] if row["seen"][name] != row["wanted"][name])
        wrong = [f"{name} {seen or 'none'}" for name, seen in pairs]
        print("ok   " if not wrong else "WRONG", row["prompt"], *(["| saw", ", ".join(wrong)] if wrong else []))
    summary = rates(rows)
    print(" ".join(f"{name} {value:.1%}" for name, value in summary.items()))
    distances = sorted(row["latent_psnr_db"] for row in rows) if options.against else []
    if distances:
        print(
            f"latent PSNR against {options.against}: median {distances[len(distances) // 2]} dB, least {distances[0]}"
        )
    if options.json:
        record = {
            "model": options.model,
            "torch": torch.__version__,
            "seed": options.seed,
            "precision": options.precision,
            "against": options.against,
            "rates": summary,
            "rows": rows,
        }
        with atomic_path(options.json) as path:
            path.write_text(json.dumps(record, indent=1, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
