"""What each word of a caption is worth to the tiny model: the loss with one thing said wrong, beside the right caption.

    python -m benchmarks.caption_check --model runs/tiny

A model that understands a word pays for a wrong one. This shows long before a sample does, and per noise level: the
background is decided first, then colours and places, shapes and motions last. Scenes are those of validation.
"""

import argparse
from collections.abc import Callable
from dataclasses import replace
from random import Random

import torch

from wan_model.pipeline import load_pipeline
from wan_model.tables import print_table
from wan_model.training.dit import NUM_VALIDATION_CLIPS, encode_scenes, held_out_scene
from wan_model.training.objective import flow_matching_loss, flow_matching_pair
from wan_model.training.world import COLOURS, SHAPES, Scene, caption

SIGMAS = (0.5, 0.7, 0.8, 0.9, 0.95)
OPPOSITES = {"right": "left", "left": "right", "up": "down", "down": "up", "grows": "shrinks", "shrinks": "grows"}


def other(choices: tuple[str, ...] | dict[str, object], *taken: str) -> str:
    return next(choice for choice in choices if choice not in taken)


def with_thing(scene: Scene, **changed: str) -> Scene:
    return replace(scene, things=(replace(scene.things[0], **changed), *scene.things[1:]))


WRONG: dict[str, Callable[[Scene], Scene] | None] = {
    "nothing": lambda scene: scene,
    "colours swapped": lambda scene: replace(
        with_thing(scene, colour=scene.background), background=scene.things[0].colour
    ),
    "colour": lambda scene: with_thing(scene, colour=other(COLOURS, scene.things[0].colour, scene.background)),
    "background": lambda scene: replace(scene, background=other(COLOURS, scene.things[0].colour, scene.background)),
    "shape": lambda scene: with_thing(scene, shape=other(SHAPES, scene.things[0].shape)),
    "motion": lambda scene: replace(scene, motion=OPPOSITES.get(scene.motion, scene.motion)),
    "no caption": None,
}


@torch.no_grad()
def losses(model: str, num_frames: int) -> dict[str, list[float]]:
    """Flow-matching loss at each noise level, for each way of being wrong."""
    pipeline = load_pipeline(model)
    scenes = [held_out_scene(i) for i in range(NUM_VALIDATION_CLIPS)]
    latents = encode_scenes(pipeline.vae, scenes)[:, :, : 1 + (num_frames - 1) // 4].float()
    noise = torch.randn(latents.shape, generator=torch.Generator().manual_seed(0))
    found: dict[str, list[float]] = {}
    for name, change in WRONG.items():
        captions = ["" if change is None else caption(change(scene), Random(i)) for i, (scene, _) in enumerate(scenes)]
        context = pipeline.text_encoder(*pipeline.tokenizer(captions))
        found[name] = []
        for sigma in SIGMAS:
            sigmas = torch.full((len(latents),), sigma)
            noisy, target = flow_matching_pair(latents, sigmas, noise)
            velocity = pipeline.dits[0](noisy, 1000 * sigmas, context)
            found[name].append(flow_matching_loss(velocity, target).item())
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="tiny", help="tiny, or a model directory that knows the tiny world")
    parser.add_argument("--frames", type=int, default=17, help="how much of each clip: 1 is an image")
    options = parser.parse_args()
    rows = [
        (name, *(f"{value:.4f}" for value in values)) for name, values in losses(options.model, options.frames).items()
    ]
    levels = tuple(str(sigma) for sigma in SIGMAS)
    print_table("loss by noise level, where the caption is wrong about", ("", *levels), rows, right=levels)


if __name__ == "__main__":
    main()
