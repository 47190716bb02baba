# SPDX-License-Identifier: Apache-2.0
"""The words that pocket-clip knows: prompt templates, captions of rendered scenes, and its vocabulary."""

from __future__ import annotations

import re
from collections.abc import Sequence

import torch

from tta_bench.pocket.scenes.spec import BACKGROUNDS, CLASS_NAMES, COLOUR_NAMES, TEMPLATES, TEXTURES, Facts

_OPENINGS = ("a photo of", "a picture of", "an image of", "this is", "there is", "")
_ARTICLES = ("a", "one", "the")
_PLACES: dict[str, tuple[str, ...]] = {
    "sky": ("in the sky", "among clouds"),
    "grass": ("on the grass", "in a meadow"),
    "sand": ("on the sand", "at the beach"),
    "water": ("on the water", "at sea"),
    "brick": ("by a brick wall", "in front of bricks"),
    "night": ("at night", "under the stars"),
}
# Words of prompts that methods compose themselves, such as "a photo of a ball or a moon".
_CONNECTORS = ("or", "and", "with", "no", "not")


def vocabulary() -> tuple[str, ...]:
    """Return every word that prompts and captions can contain, sorted."""
    phrases = [*CLASS_NAMES, *COLOUR_NAMES, *TEXTURES, *BACKGROUNDS, *TEMPLATES, *_OPENINGS, *_ARTICLES]
    phrases += [*_CONNECTORS, *(place for places in _PLACES.values() for place in places)]
    return tuple(sorted({word for phrase in phrases for word in re.findall("[a-z]+", phrase)}))


def _pick(options: Sequence[str], generator: torch.Generator) -> str:
    return options[int(torch.randint(len(options), (), generator=generator))]


def caption(facts: Facts, generator: torch.Generator) -> str:
    """Return a caption such as ``a photo of one red striped ball on the grass``.

    Colour, texture and place are each named three times in four, and a plain texture never is.

    Args:
        facts: What the image shows.
        generator: Source of all randomness.
    """
    colour, texture, place = (torch.rand(3, generator=generator) < 0.75).tolist()
    words = [_pick(_OPENINGS, generator), _pick(_ARTICLES, generator)]
    words += [facts.colour] * colour + [facts.texture] * (texture and facts.texture != "plain") + [facts.name]
    if place:
        words.append(_pick(_PLACES[facts.background], generator))
    return " ".join(word for word in words if word)
