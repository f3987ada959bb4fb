"""Does the tiny model show what the prompt says? Forty prompts never trained on, judged by classical vision.

    python -m benchmarks.prompt_control --json benchmarks/results/prompt_control.json

Each prompt describes a held-out scene (see `wan_model.training.world.is_held_out`), three in four in English, the rest
in Chinese. Its video is made with the model's own defaults, written as mp4, read back, and looked at.
"""

import argparse
import json
import tempfile
from dataclasses import asdict
from pathlib import Path
from random import Random

import torch

from benchmarks.vision import Sighting, look
from wan_model.pipeline import generate, load_pipeline
from wan_model.quantize import PRECISIONS, Precision
from wan_model.training.dit import held_out_scene
from wan_model.training.world import DIRECTIONS, Scene, caption
from wan_model.video_io import atomic_path, read_video

FIRST_SCENE = 1000
BATCH = 8


def expected(scene: Scene) -> Sighting:
    thing = scene.things[0]
    return Sighting(thing.colour, thing.shape, scene.motion, scene.background)


def measure(model: str, count: int, seed: int, precision: Precision) -> list[dict[str, object]]:
    """One row per prompt: what was asked, what was seen."""
    pipeline = load_pipeline(model, precision=precision)
    scenes = [held_out_scene(FIRST_SCENE + i)[0] for i in range(count)]
    prompts = [caption(scene, Random(i), "zh" if i % 4 == 3 else "en") for i, scene in enumerate(scenes)]
    rows: list[dict[str, object]] = []
    with tempfile.TemporaryDirectory() as folder:
        for start in range(0, count, BATCH):
            batch = prompts[start : start + BATCH]
            result = generate(pipeline, batch, seed=[seed + start + i for i in range(len(batch))])
            for i, saved in enumerate(result.save(Path(folder) / f"{start}.mp4")):
                seen = look(read_video(saved.video))
                wanted = expected(scenes[start + i])
                rows.append({"prompt": batch[i], "wanted": asdict(wanted), "seen": asdict(seen)})
            print(f"{min(start + BATCH, count)} of {count} prompts", flush=True)
    return rows


def rates(rows: list[dict]) -> dict[str, float]:
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
    parser.add_argument("--json", type=Path, help="write rates and rows here")
    options = parser.parse_args()
    rows = measure(options.model, options.prompts, options.seed, options.precision)
    for row in rows:
        wrong = [
            f"{name} {row['seen'][name] or 'none'}"
            for name in row["wanted"]
            if row["seen"][name] != row["wanted"][name]
        ]  # type: ignore[index,call-overload]
        print("ok   " if not wrong else "WRONG", row["prompt"], *(["| saw", ", ".join(wrong)] if wrong else []))
    summary = rates(rows)
    print(" ".join(f"{name} {value:.1%}" for name, value in summary.items()))
    if options.json:
        record = {
            "model": options.model,
            "torch": torch.__version__,
            "seed": options.seed,
            "precision": options.precision,
            "rates": summary,
            "rows": rows,
        }
        with atomic_path(options.json) as path:
            path.write_text(json.dumps(record, indent=1, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
