"""A small world of captioned clips: coloured shapes that move over plain backgrounds, described in two languages.

A `Scene` says what is seen, `render` draws it, `caption` says it in words. Both take a `random.Random`, so one seed is
one clip. About a tenth of all single-object scenes is held out (`is_held_out`): training never draws them, and prompt
control is measured on them.

Letters: T frames, Y rows, X columns.
"""

import hashlib
import math
from dataclasses import dataclass
from random import Random
from typing import Literal

import torch
from torch import Tensor

Language = Literal["en", "zh"]

CANVAS = 96
NUM_FRAMES = 17

PALETTE: dict[str, tuple[int, int, int]] = {
    "red": (228, 36, 36),
    "green": (36, 176, 60),
    "blue": (36, 72, 232),
    "yellow": (248, 224, 40),
    "orange": (248, 136, 24),
    "purple": (152, 48, 208),
    "cyan": (48, 212, 224),
    "white": (248, 248, 248),
    "black": (12, 12, 12),
    "grey": (128, 128, 128),
}
COLOURS = ("red", "green", "blue", "yellow", "orange", "purple", "cyan", "white")
BACKGROUNDS = ("black", "white", "grey", "red", "green", "blue", "yellow", "purple")
SHAPES = ("circle", "square", "triangle", "star")
RADII = {"small": 12.0, "medium": 15.5, "large": 20.0}
DIRECTIONS: dict[str, tuple[int, int]] = {"left": (-1, 0), "right": (1, 0), "up": (0, -1), "down": (0, 1)}
MOTIONS = (*DIRECTIONS, "still", "grows", "shrinks")
RELATIONS = ("left of", "right of", "above", "below")

# Outer radius (of a unit-area-like body), inner radius as a share of it, corners, and the turn that sets it upright.
POLYGONS = {
    "square": (1.22, math.cos(math.pi / 4), 4, math.pi / 4),
    "triangle": (1.4, math.cos(math.pi / 3), 3, math.pi / 2),
    "star": (1.4, 0.45, 5, math.pi / 2),
}


@dataclass(frozen=True)
class Thing:
    colour: str
    shape: str
    size: str


@dataclass(frozen=True)
class Scene:
    """One thing that moves, or two that stand in a relation and move together."""

    things: tuple[Thing, ...]
    motion: str
    background: str
    relation: str = ""


def sample_scene(rng: Random, *, two_things: float = 0.2) -> Scene:
    """A scene of the training world; `two_things` is the share of scenes with two objects."""
    while True:
        scene = sample_pair(rng) if rng.random() < two_things else sample_single(rng)
        if not is_held_out(scene):
            return scene


def sample_single(rng: Random) -> Scene:
    colour = rng.choice(COLOURS)
    background = rng.choice([b for b in BACKGROUNDS if b != colour])
    thing = Thing(colour, rng.choice(SHAPES), rng.choice(tuple(RADII)))
    return Scene((thing,), rng.choice(MOTIONS), background)


def sample_pair(rng: Random) -> Scene:
    first, second = rng.sample(COLOURS, 2)
    background = rng.choice([b for b in BACKGROUNDS if b not in (first, second)])
    relation = rng.choice(RELATIONS)
    motions = ("up", "down", "still") if relation in ("left of", "right of") else ("left", "right", "still")
    things = (Thing(first, rng.choice(SHAPES), "small"), Thing(second, rng.choice(SHAPES), "small"))
    return Scene(things, rng.choice(motions), background, relation)


def is_held_out(scene: Scene) -> bool:
    """True for a fixed tenth of the single-object scenes, chosen by a hash of colour, shape, motion, background."""
    if len(scene.things) > 1:
        return False
    thing = scene.things[0]
    key = " ".join((thing.colour, thing.shape, scene.motion, scene.background))
    return hashlib.sha256(key.encode()).digest()[0] < 26


# Drawing


def render(scene: Scene, rng: Random, *, num_frames: int = NUM_FRAMES, canvas: int = CANVAS) -> Tensor:
    """The clip of a scene: [3, T, Y, X] float32 in [-1, 1], edges antialiased. Positions and speed come from `rng`."""
    frames = colour_plane(scene.background, rng).expand(3, num_frames, canvas, canvas)
    for thing, path in zip(scene.things, paths(scene, rng, num_frames), strict=True):
        x, y, radius = (column.view(-1, 1, 1) * canvas / CANVAS for column in path.unbind(-1))
        grid = torch.arange(canvas) + 0.5
        cover = (0.5 - signed_distance(thing.shape, grid.view(1, 1, -1) - x, grid.view(1, -1, 1) - y, radius)).clamp(
            0, 1
        )
        frames = frames + cover * (colour_plane(thing.colour, rng) - frames)
    return frames * 2 - 1


def colour_plane(name: str, rng: Random) -> Tensor:
    """A colour of the palette, off by at most 6 of 255 in each channel, as [3, 1, 1, 1] in [0, 1]."""
    values = [min(max(channel + rng.uniform(-6, 6), 0), 255) / 255 for channel in PALETTE[name]]
    return torch.tensor(values).view(3, 1, 1, 1)


def signed_distance(shape: str, x: Tensor, y: Tensor, radius: Tensor) -> Tensor:
    """Distance in pixels from the outline, negative inside. Polygons and stars fold into one edge of one corner."""
    distance = torch.sqrt(x * x + y * y)
    if shape == "circle":
        return distance - radius
    outer, inner, corners, turn = POLYGONS[shape]
    sector = 2 * math.pi / corners
    angle = torch.remainder(torch.atan2(y, x) + turn, sector)
    angle = torch.minimum(angle, sector - angle)
    # The edge runs from the corner (1, 0) to the inner point at half a sector, both in units of the outer radius.
    edge_x, edge_y = inner * math.cos(sector / 2) - 1, inner * math.sin(sector / 2)
    length = math.hypot(edge_x, edge_y)
    return ((distance * angle.cos() - outer * radius) * edge_y - distance * angle.sin() * edge_x) / length


def paths(scene: Scene, rng: Random, num_frames: int) -> list[Tensor]:
    """(x, y, radius) of each thing in each frame, [T, 3], in pixels of the standard canvas."""
    time = torch.linspace(0, 1, num_frames) if num_frames > 1 else torch.zeros(1)
    step_x, step_y = DIRECTIONS.get(scene.motion, (0, 0))
    radii = [RADII[thing.size] for thing in scene.things]
    reach = 1.3 * max(radii) * (1.25 if scene.motion in ("grows", "shrinks") else 1)
    travel = min(rng.uniform(36, 48), CANVAS - 2 * reach)
    starts = start_points(scene, rng, reach, (step_x * travel, step_y * travel))
    return [
        torch.stack(
            [x + step_x * travel * time, y + step_y * travel * time, radius * growth(scene.motion, time)], dim=-1
        )
        for (x, y), radius in zip(starts, radii, strict=True)
    ]


def growth(motion: str, time: Tensor) -> Tensor:
    if motion == "grows":
        return 0.55 + 0.75 * time
    return 1.3 - 0.75 * time if motion == "shrinks" else torch.ones_like(time)


def start_points(scene: Scene, rng: Random, reach: float, shift: tuple[float, float]) -> list[tuple[float, float]]:
    """Where each thing starts, such that nothing leaves the canvas while it moves by `shift`."""

    def along(move: float, spread: float) -> float:
        low, high = reach + max(-move, 0) + spread, CANVAS - reach - max(move, 0) - spread
        return rng.uniform(low, high) if low < high else (low + high) / 2

    if not scene.relation:
        return [(along(shift[0], 0), along(shift[1], 0))]
    gap = rng.uniform(20, 25)
    sign = 1 if scene.relation in ("left of", "above") else -1
    if scene.relation in ("left of", "right of"):
        x, y = along(shift[0], gap), along(shift[1], 0)
        return [(x - sign * gap, y), (x + sign * gap, y)]
    x, y = along(shift[0], 0), along(shift[1], gap)
    return [(x, y - sign * gap), (x, y + sign * gap)]


# Words

ENGLISH_MOTIONS = {
    "left": ("moves left", "moves to the left", "slides left", "moving left"),
    "right": ("moves right", "moves to the right", "slides right", "moving right"),
    "up": ("moves up", "rises", "slides up", "moving up"),
    "down": ("moves down", "falls", "slides down", "moving down"),
    "still": ("stays still", "does not move", "rests"),
    "grows": ("grows", "gets bigger", "growing"),
    "shrinks": ("shrinks", "gets smaller", "shrinking"),
}
CHINESE = {
    "red": "红色", "green": "绿色", "blue": "蓝色", "yellow": "黄色", "orange": "橙色", "purple": "紫色",
    "cyan": "青色", "white": "白色", "black": "黑色", "grey": "灰色",
    "circle": "圆形", "square": "方形", "triangle": "三角形", "star": "星形",
    "small": "小", "medium": "", "large": "大",
    "left of": "左边", "right of": "右边", "above": "上方", "below": "下方",
}  # fmt: skip
CHINESE_MOTIONS = {
    "left": ("向左移动", "往左移动"), "right": ("向右移动", "往右移动"), "up": ("向上移动", "往上移动"),
    "down": ("向下移动", "往下移动"), "still": ("静止不动", "不动"), "grows": ("变大", "逐渐变大"),
    "shrinks": ("变小", "逐渐变小"),
}  # fmt: skip


def caption(scene: Scene, rng: Random, language: Language | None = None) -> str:
    """A sentence that describes the scene; English three times in four unless `language` says."""
    language = language or ("en" if rng.random() < 0.75 else "zh")
    return english(scene, rng) if language == "en" else chinese(scene, rng)


def english(scene: Scene, rng: Random) -> str:
    names = [english_name(thing, rng) for thing in scene.things]
    motion = rng.choice(ENGLISH_MOTIONS[scene.motion])
    ground = rng.choice((f"over a {scene.background} background", f"on a {scene.background} background"))
    if len(names) == 1:
        return rng.choice(
            (f"{names[0]} {motion} {ground}", f"{names[0]} {motion} {ground}", f"{ground}, {names[0]} {motion}")
        )
    relation = scene.relation if scene.relation in ("above", "below") else f"to the {scene.relation}"
    together = "both are still" if scene.motion == "still" else f"both move {scene.motion}"
    return f"{names[0]} {relation} {names[1]}, {together} {ground}"


def english_name(thing: Thing, rng: Random) -> str:
    size = rng.choice(("", "medium ")) if thing.size == "medium" else thing.size + " "
    article = "an" if not size and thing.colour == "orange" else "a"
    return f"{article} {size}{thing.colour} {thing.shape}"


def chinese(scene: Scene, rng: Random) -> str:
    names = [f"一个{CHINESE[t.size]}{CHINESE[t.colour]}{CHINESE[t.shape]}" for t in scene.things]
    motion = rng.choice(CHINESE_MOTIONS[scene.motion])
    ground = f"{CHINESE[scene.background]}背景"
    if len(names) == 1:
        return rng.choice((f"{names[0]}在{ground}上{motion}", f"{ground}上，{names[0]}{motion}"))
    return f"{names[0]}在{names[1]}的{CHINESE[scene.relation]}，一起在{ground}上{motion}"


def vocabulary() -> list[str]:
    """Every word and every Chinese character a caption can hold, sorted."""
    words: set[str] = set()
    rng = Random(0)
    for _ in range(6000):
        scene = sample_scene(rng, two_things=0.4)
        words |= set(english(scene, rng).replace(",", " , ").split()) | set(chinese(scene, rng))
    return sorted(words | {"the", "and", "with", "is", "of", "in", "at", "."})
