"""Classical vision for the tiny world: what colour, shape, motion and background a clip shows, with no network.

The background is the colour of the border; the object is the largest blob that differs from it. Its colour is the
nearest of the palette, its motion follows the path and the area of the blob, and its shape is the ideal outline, drawn
at the blob's own centre and area, that covers it best.

Letters: F frames, Y rows, X columns, C colour channels (RGB, 0 to 255).
"""

from dataclasses import dataclass

import cv2
import numpy as np
import torch

from wan_model.training.world import BACKGROUNDS, COLOURS, PALETTE, SHAPES, signed_distance

MIN_CONTRAST = 50.0
MIN_AREA = 40
MIN_TRAVEL = 10.0


@dataclass(frozen=True)
class Sighting:
    """What was seen; an empty string where no object was found in three quarters of the frames."""

    colour: str
    shape: str
    motion: str
    background: str


def look(frames_FYXC: np.ndarray) -> Sighting:
    """Names what a clip of uint8 frames shows."""
    frames = frames_FYXC.astype(np.float32)
    border = np.concatenate([frames[:, 0], frames[:, -1], frames[:, :, 0], frames[:, :, -1]], axis=1)
    ground = np.median(border.reshape(-1, 3), axis=0)
    background = nearest(ground, BACKGROUNDS)
    masks = [largest_blob(np.linalg.norm(frame - ground, axis=-1) > MIN_CONTRAST) for frame in frames]
    seen = [i for i, mask in enumerate(masks) if mask.sum() >= MIN_AREA]
    if len(seen) < 0.75 * len(frames):
        return Sighting("", "", "", background)
    colour = np.median(np.concatenate([frames[i][inside(masks[i])] for i in seen]), axis=0)
    return Sighting(
        colour=nearest(colour, COLOURS),
        shape=best_shape([masks[i] for i in seen]),
        motion=motion_of([masks[i] for i in seen]),
        background=background,
    )


def nearest(colour: np.ndarray, names: tuple[str, ...]) -> str:
    return min(names, key=lambda name: float(np.linalg.norm(colour - np.array(PALETTE[name]))))


def largest_blob(mask: np.ndarray) -> np.ndarray:
    count, labels, stats, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8))
    if count == 1:
        return np.zeros_like(mask)
    return labels == 1 + int(np.argmax(stats[1:, cv2.CC_STAT_AREA]))


def inside(mask: np.ndarray) -> np.ndarray:
    """The mask without its blurred rim, or all of it where nothing else is left."""
    core = cv2.erode(mask.astype(np.uint8), np.ones((5, 5), np.uint8)).astype(bool)
    return core if core.any() else mask


def centre(mask: np.ndarray) -> np.ndarray:
    """(x, y) of the mask's centroid in pixels."""
    y, x = np.nonzero(mask)
    return np.array([x.mean(), y.mean()]) + 0.5


def motion_of(masks: list[np.ndarray]) -> str:
    """A direction, if the blob travels; growth or shrinkage, if its area changes by a third; otherwise still."""
    quarter = max(1, len(masks) // 4)
    start, end = masks[:quarter], masks[-quarter:]
    x, y = np.mean([centre(m) for m in end], axis=0) - np.mean([centre(m) for m in start], axis=0)
    if max(abs(x), abs(y)) > MIN_TRAVEL:
        return ("right" if x > 0 else "left") if abs(x) > abs(y) else ("down" if y > 0 else "up")
    ratio = np.mean([m.sum() for m in end]) / np.mean([m.sum() for m in start])
    return "grows" if ratio > 4 / 3 else "shrinks" if ratio < 3 / 4 else "still"


def best_shape(masks: list[np.ndarray]) -> str:
    scores = {shape: float(np.mean([overlap(mask, shape) for mask in masks])) for shape in SHAPES}
    return max(scores, key=lambda shape: scores[shape])


def overlap(mask: np.ndarray, shape: str) -> float:
    """Intersection over union of a mask with the ideal shape of the same area and centroid."""
    x, y = centre(mask)
    area = int(mask.sum())
    radius = np.sqrt(area / np.pi)
    for _ in range(4):
        radius *= np.sqrt(area / max(1, draw(mask.shape, shape, x, y, radius).sum()))
    ideal = draw(mask.shape, shape, x, y, radius)
    shift = np.array([x, y]) - centre(ideal)
    ideal = draw(mask.shape, shape, x + shift[0], y + shift[1], radius)
    return float((mask & ideal).sum() / (mask | ideal).sum())


def draw(size: tuple[int, ...], shape: str, x: float, y: float, radius: float) -> np.ndarray:
    rows, columns = (torch.arange(n) + 0.5 for n in size)
    distance = signed_distance(shape, columns.view(1, -1) - x, rows.view(-1, 1) - y, torch.tensor(radius))
    return (distance < 0).numpy()
