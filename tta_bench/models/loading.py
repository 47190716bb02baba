# SPDX-License-Identifier: Apache-2.0
"""Load a source model by its name and bind it to the classes of a dataset."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from tta_bench import registry
from tta_bench.errors import BadInputError, Caution, PluginError
from tta_bench.models.source import SourceModel

DTYPES = {"float32": torch.float32, "float64": torch.float64, "bfloat16": torch.float32}
"""Floating type of a model's tensors by precision; ``bfloat16`` rounds products alone, under autocast."""


@dataclass(frozen=True)
class ModelRequest:
    """The request that a loader answers.

    Attributes:
        name: The whole name, e.g. ``"timm/resnet50.a1_in1k"``.
        rest: The part after the family, e.g. ``"resnet50.a1_in1k"``; empty where there is none.
        class_names: The K classes that the stream's labels index.
        class_indices: Which of the model's own outputs stand for them, in that order; several for one class in
            parentheses; None: all, in order.
        templates: Prompt templates with one ``{}`` each, for CLIP-like models.
        pretrained: False gives random weights drawn from `seed`.
        seed: Of the random weights.
        dtype: Of the floating tensors.
        device: Where the model lives.
    """

    name: str
    rest: str
    class_names: tuple[str, ...]
    class_indices: tuple[int | tuple[int, ...], ...] | None = None
    templates: tuple[str, ...] = ("a photo of a {}.",)
    pretrained: bool = True
    seed: int = 0
    dtype: torch.dtype = torch.float32
    device: str = "cpu"


def family_of(name: str) -> tuple[str, str]:
    """Return the registered family of a model name and the rest: ``timm/resnet18`` gives (timm, resnet18)."""
    for mark in ("/", ":"):
        family, found, rest = name.partition(mark)
        if found and family in registry.registered("models"):
            return family, rest
    return name, ""


def is_file(choice: str) -> bool:
    """Return whether what follows a model's architecture is a file of weights, and not a tag."""
    return "/" in choice or "." in choice or Path(choice).expanduser().is_file()


def file_of(name: str) -> str:
    """Return the file of weights that a model's name ends in, empty if it ends in none.

    ``timm/resnet50:weights/best.pt`` gives ``weights/best.pt``; a tag, as in ``torchvision/resnet50:IMAGENET1K_V1``,
    is no file.
    """
    family, rest = family_of(name)
    choice = rest.partition(":")[2]
    return "" if not choice or name.startswith(f"{family}:") or not is_file(choice) else choice


def load_model(
    name: str,
    class_names: Sequence[str],
    *,
    class_indices: Sequence[int | tuple[int, ...]] | None = None,
    templates: Sequence[str] = ("a photo of a {}.",),
    pretrained: bool = True,
    seed: int = 0,
    precision: str = "float32",
    device: str = "cpu",
) -> SourceModel:
    """Load a source model by name and bind it to a class list.

    Args:
        name: E.g. ``"timm/resnet50.a1_in1k"``.
        class_names: As in `ModelRequest`, like all that follow but the precision.
        class_indices: See there.
        templates: See there.
        pretrained: See there.
        seed: See there.
        precision: ``"float32"``, ``"float64"``, or ``"bfloat16"`` for float32 tensors under autocast.
        device: See there.

    Raises:
        UnknownNameError: If no family or no model of that name is known.
        BadInputError: If the model cannot be bound to these classes.
    """
    if precision not in DTYPES:
        raise BadInputError(f"precision must be one of {', '.join(DTYPES)}, got {precision!r}")
    family, rest = family_of(name)
    request = ModelRequest(
        name=name,
        rest=rest,
        class_names=tuple(class_names),
        class_indices=None if class_indices is None else tuple(class_indices),
        templates=tuple(templates),
        pretrained=pretrained,
        seed=seed,
        dtype=DTYPES[precision],
        device=device,
    )
    model = registry.load("models", family)(request)
    if not isinstance(model, SourceModel):
        raise PluginError(f"the loader of {family!r} must return a SourceModel, got {type(model).__name__}")
    for caution in model.cautions:
        warnings.warn(caution, Caution, stacklevel=2)
    if precision == "bfloat16":
        model.round_products(torch.bfloat16)
    return model
