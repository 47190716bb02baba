# SPDX-License-Identifier: Apache-2.0
"""Prompt templates of the literature.

Source: the single templates are those of CoOp (arXiv:2109.01134); ``seven`` is the subset for ImageNet chosen in
Tip-Adapter (arXiv:2111.03930); the ensembles are those of CLIP (arXiv:2103.00020).
"""

from __future__ import annotations

from tta_bench.data.catalogue.names import imagenet_ensemble

PHOTO = ("a photo of a {}.",)
SEVEN = (
    "itap of a {}.",
    "a bad photo of the {}.",
    "a origami {}.",
    "a photo of the large {}.",
    "a {} in a video game.",
    "art of the {}.",
    "a photo of the small {}.",
)
_QUALITIES = ("", "blurry ", "black and white ", "low contrast ", "high contrast ", "bad ", "good ")
CIFAR = (
    *(f"a {quality}photo of a {{}}." for quality in _QUALITIES),
    "a photo of a small {}.",
    "a photo of a big {}.",
    *(f"a {quality}photo of the {{}}." for quality in _QUALITIES),
    "a photo of the small {}.",
    "a photo of the big {}.",
)
TEXTURES = tuple(
    f"a photo of {article} {{}} {kind}."
    for article in ("a", "the")
    for kind in ("texture", "pattern", "thing", "object")
)
SATELLITE = tuple(f"a centered satellite photo of {article}{{}}." for article in ("", "a ", "the "))
AIRCRAFT = tuple(f"a photo of {article} {{}}, a type of aircraft." for article in ("a", "the"))
SCENES = tuple(f"a photo of {article} {{}}." for article in ("a", "the"))
CARS = (
    *(f"a photo of {article} {{}}." for article in ("a", "the", "my")),
    "i love my {}!",
    *(f"a photo of my {state} {{}}." for state in ("dirty", "clean", "new", "old")),
)
ACTIONS = tuple(
    f"a {medium} of {article} person {verb}{{}}."
    for medium in ("photo", "video", "example", "demonstration")
    for article in ("a", "the")
    for verb in ("", "using ", "doing ", "during ", "performing ", "practicing ")
)


def imagenet_sets() -> dict[str, tuple[str, ...]]:
    """Return the sets that are used with ImageNet and its variants."""
    return {"single": PHOTO, "seven": SEVEN, "ensemble": imagenet_ensemble()}
