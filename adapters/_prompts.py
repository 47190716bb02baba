# SPDX-License-Identifier: Apache-2.0
"""Prompt sets by name, and features compared with their class prototypes: what zero-shot scores are made of."""

from __future__ import annotations

from typing import Literal

from torch import Tensor
from torch.nn import functional as F

from tta_bench.errors import BadInputError, IncompatibleError
from tta_bench.method import SourceModel, TextSide

Prompts = Literal["dataset", "single", "seven", "ensemble"]
NAMES: tuple[Prompts, ...] = ("dataset", "single", "seven", "ensemble")


def check_prompts(name: str) -> None:
    """Refuse an unknown prompt set.

    Raises:
        BadInputError: With the names that there are.
    """
    if name not in NAMES:
        raise BadInputError(f"templates must be one of {', '.join(NAMES)}, got {name!r}")


def prompt_templates(name: Prompts) -> tuple[str, ...]:
    """Return the templates of a set: CLIP's one for photographs, its 80 for ImageNet, or the seven chosen of these."""
    if name == "single":
        return ("a photo of a {}.",)
    import open_clip

    chosen = open_clip.SIMPLE_IMAGENET_TEMPLATES if name == "seven" else open_clip.OPENAI_IMAGENET_TEMPLATES
    return tuple(template("{}") for template in chosen)


def prototypes(source: SourceModel, name: Prompts) -> Tensor | None:
    """Return the class prototypes (K, D) of a prompt set; None where the source model's own are asked for.

    Raises:
        IncompatibleError: If the source model has no text side.
    """
    if name == "dataset":
        return None
    if source.text is None:
        raise IncompatibleError(
            f"templates={name!r} needs a source model with a text side, which {source.name!r} lacks; "
            "choose templates='dataset' or a CLIP-like model"
        )
    return source.text.prototypes(prompt_templates(name))


def scores(source: SourceModel, features: Tensor, classes: Tensor | None) -> Tensor:
    """Return the scores (N, K) of features (N, D): scaled cosines to prototypes (K, D), or those of the head."""
    if classes is None or source.text is None:
        return source.head(features)
    logits: Tensor = source.text.scale * F.normalize(features, dim=-1) @ classes.T
    return logits if source.text.bias is None else logits + source.text.bias


def text_side(method: object, source: SourceModel) -> TextSide:
    """Return the text side of a source model.

    Raises:
        IncompatibleError: If it has none.
    """
    if source.text is None:
        raise IncompatibleError(
            f"{type(method).__name__} needs a text side, which {source.name!r} lacks; choose a CLIP-like model, "
            "e.g. pocket-clip"
        )
    return source.text
