# SPDX-License-Identifier: Apache-2.0
"""The look of every PocketScenes split: class list, palettes, split sizes and the ranges of each look."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple

from tta_bench.errors import UnknownNameError

SIDE = 32
CLASS_NAMES = (
    "ball", "star", "heart", "moon", "ring", "cross", "arrow", "house",
    "tree", "fish", "mushroom", "cup", "boat", "flower", "umbrella", "key",
)  # fmt: skip
TEMPLATES = (
    "a photo of a {}.",
    "itap of a {}.",
    "a bad photo of the {}.",
    "a origami {}.",
    "a photo of the large {}.",
    "a {} in a video game.",
    "art of the {}.",
    "a photo of the small {}.",
)
"""Prompts for zero-shot classification: the plain one and the seven that CLIP's authors chose for ImageNet."""
GENERATOR_VERSION = 2
"""Raised whenever any pixel of any split changes; the ids of cells depend on it."""
TEXTURES = ("plain", "striped", "dotted", "checked", "speckled")
BACKGROUNDS = ("sky", "grass", "sand", "water", "brick", "night")
COLOURS: dict[str, tuple[float, float, float]] = {
    "red": (0.84, 0.13, 0.15),
    "orange": (0.96, 0.52, 0.10),
    "yellow": (0.97, 0.85, 0.18),
    "green": (0.16, 0.62, 0.24),
    "teal": (0.08, 0.66, 0.66),
    "blue": (0.15, 0.30, 0.82),
    "purple": (0.52, 0.20, 0.70),
    "pink": (0.97, 0.52, 0.70),
    "brown": (0.46, 0.27, 0.14),
    "white": (0.95, 0.95, 0.93),
}
COLOUR_NAMES = tuple(COLOURS)
BACKGROUND_TONE: dict[str, tuple[float, float, float]] = {
    "sky": (0.60, 0.78, 0.93),
    "grass": (0.28, 0.50, 0.20),
    "sand": (0.83, 0.73, 0.53),
    "water": (0.18, 0.45, 0.60),
    "brick": (0.62, 0.35, 0.28),
    "night": (0.08, 0.09, 0.22),
}
MIN_CONTRAST = 0.42
"""Least Euclidean RGB distance between an object's colour and the mean tone of its background."""


class Facts(NamedTuple):
    """Hold the words that describe one image, as a caption needs them."""

    name: str
    colour: str
    texture: str
    background: str


@dataclass(frozen=True)
class Look:
    """Describe how the images of a split are drawn.

    Attributes:
        size: Number of images.
        style: Rendering: shaded scene, pencil on paper, or flat poster.
        turn: Largest rotation, in turns (1 turn = 360 degrees).
        scale: Range of the object's size as a fraction of the frame.
        gain: Range of the exposure gain.
        contrast: Range of the contrast factor about mid grey.
        clutter: Range of the number of clutter objects.
        occluded: Probability of a bar in front of the object.
        bar: Range of the bar's half-width, in frame halves.
        noise: Range of the standard deviation of the sensor noise.
    """

    size: int = 2000
    style: Literal["scene", "sketch", "poster"] = "scene"
    turn: float = 25 / 360
    scale: tuple[float, float] = (0.42, 0.78)
    gain: tuple[float, float] = (0.85, 1.15)
    contrast: tuple[float, float] = (0.92, 1.08)
    clutter: tuple[int, int] = (0, 4)
    occluded: float = 0.15
    bar: tuple[float, float] = (0.06, 0.11)
    noise: tuple[float, float] = (0.005, 0.025)


LOOKS: dict[str, Look] = {
    "train": Look(size=20000),
    "val": Look(),
    "test": Look(),
    "v2": Look(turn=40 / 360, scale=(0.38, 0.70), gain=(0.65, 0.95), contrast=(0.7, 0.95),
               clutter=(2, 6), occluded=0.3),
    "hard": Look(scale=(0.26, 0.46), clutter=(7, 7), occluded=0.7, bar=(0.05, 0.09)),
    "sketch": Look(style="sketch", clutter=(0, 0), occluded=0.0),
    "rendition": Look(style="poster", clutter=(0, 0), occluded=0.0, noise=(0.0, 0.008)),
}  # fmt: skip
SPLITS = tuple(LOOKS)
SPLIT_SIZES = {name: look.size for name, look in LOOKS.items()}
MAX_CLUTTER = max(look.clutter[1] for look in LOOKS.values())


def look_of(split: str) -> Look:
    """Return the look of a split.

    Raises:
        UnknownNameError: If there is no such split.
    """
    if split not in LOOKS:
        raise UnknownNameError("PocketScenes split", split, SPLITS)
    return LOOKS[split]


def contrasting(background: str) -> tuple[int, ...]:
    """Return the indices of the colours that stand out against a background."""
    tone = BACKGROUND_TONE[background]
    return tuple(
        i
        for i, colour in enumerate(COLOURS.values())
        if sum((a - b) ** 2 for a, b in zip(colour, tone, strict=True)) >= MIN_CONTRAST**2
    )
