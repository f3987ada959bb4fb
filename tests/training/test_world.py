"""The world: what is drawn is what is said, one seed is one clip, and held-out scenes stay out."""

from random import Random

import pytest
import torch

from wan_model.training.world import (
    COLOURS,
    MOTIONS,
    PALETTE,
    SHAPES,
    Scene,
    Thing,
    caption,
    is_held_out,
    render,
    sample_scene,
    signed_distance,
    vocabulary,
)


def test_one_seed_is_one_clip():
    def clip(seed: int) -> torch.Tensor:
        rng = Random(seed)
        return render(sample_scene(rng), rng)

    assert clip(3).equal(clip(3))
    assert not clip(3).equal(clip(4))


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("colour", COLOURS[:2])
def test_the_thing_has_its_colour_and_the_ground_its_own(shape, colour):
    clip = (render(Scene((Thing(colour, shape, "large"),), "still", "grey"), Random(0)) + 1) * 127.5
    for name in (colour, "grey"):
        distance = (clip - torch.tensor(PALETTE[name]).view(3, 1, 1, 1)).abs().amax(0)
        assert (distance < 12).float().mean() > (0.5 if name == "grey" else 0.05)


@pytest.mark.parametrize(("motion", "axis", "sign"), [("left", 1, -1), ("right", 1, 1), ("up", 0, -1), ("down", 0, 1)])
def test_things_move_where_the_scene_says(motion, axis, sign):
    clip = render(Scene((Thing("red", "circle", "small"),), motion, "blue"), Random(5))
    redness = clip[0] - clip[2]
    centres = [(redness[t] > 0.5).nonzero().float().mean(0)[axis] for t in (0, -1)]
    assert 30 < sign * (centres[1] - centres[0]) < 50


@pytest.mark.parametrize("shape", SHAPES)
def test_shapes_are_near_a_unit_disc_in_area(shape):
    grid = torch.linspace(-40, 40, 801)
    inside = signed_distance(shape, grid.view(1, -1), grid.view(-1, 1), torch.tensor(20.0)) < 0
    area = inside.float().mean() * 80 * 80 / (3.14159 * 20**2)
    assert 0.5 < area < 1.1


def test_training_never_draws_a_held_out_scene():
    rng = Random(0)
    scenes = [sample_scene(rng) for _ in range(3000)]
    assert not any(is_held_out(scene) for scene in scenes)
    everything = [
        Scene((Thing(c, s, "small"),), m, "black") for c in COLOURS for s in SHAPES for m in MOTIONS
    ]  # fmt: skip
    share = sum(map(is_held_out, everything)) / len(everything)
    assert 0.05 < share < 0.16


def test_the_vocabulary_holds_every_caption():
    words = set(vocabulary())
    rng = Random(123)
    for _ in range(500):
        scene = sample_scene(rng, two_things=0.5)
        assert set(caption(scene, rng, "zh")) <= words
        assert set(caption(scene, rng, "en").replace(",", " , ").split()) <= words
