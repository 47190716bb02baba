# SPDX-License-Identifier: Apache-2.0
"""Load a source model by its name and bind it to the classes of a dataset."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from tta_bench import registry
from tta_bench.errors import BadInputError, Caution, IncompatibleError, PluginError
from tta_bench.models.expectations import expecting
from tta_bench.models.source import SourceModel
from tta_bench.spec import ModelOptions

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
        class_folders: What the classes are called on disk, where a model's outputs are to be matched with them; empty:
            the outputs are the classes.
        options: What the user says of the model in place of what its library knows.
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
    class_folders: tuple[str, ...] = ()
    options: ModelOptions = ModelOptions()


def made_outputs(request: ModelRequest) -> int | None:
    """Return how many outputs a model gets where its library's weights are not used.

    None stands for those of its file, or of its architecture where `class_indices` choose among them.
    """
    if request.pretrained:
        return request.options.num_classes
    told = request.options.num_classes or len(request.options.class_names)
    if told:
        return told
    return None if request.class_indices is not None else len(request.class_names)


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
    class_folders: Sequence[str] = (),
    options: ModelOptions | None = None,
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
        class_folders: See there.
        options: See there.
        templates: See there.
        pretrained: See there.
        seed: See there.
        precision: ``"float32"``, ``"float64"``, or ``"bfloat16"`` for float32 tensors under autocast.
        device: See there.

    Raises:
        UnknownNameError: If no family or no model of that name is known.
        BadInputError: If the model cannot be bound to these classes.
    """
    family, rest = family_of(name)
    request = ModelRequest(
        name=name,
        rest=rest,
        class_names=tuple(class_names),
        class_indices=None if class_indices is None else tuple(class_indices),
        templates=tuple(templates),
        pretrained=pretrained,
        seed=seed,
        dtype=dtype_of(precision),
        device=device,
        class_folders=tuple(class_folders),
        options=options or ModelOptions(),
    )
    model = registry.load("models", family)(request)
    if not isinstance(model, SourceModel):
        raise PluginError(f"the loader of {family!r} must return a SourceModel, got {type(model).__name__}")
    return ready(model, request, precision)


def dtype_of(precision: str) -> torch.dtype:
    """Return the floating type of a model's tensors.

    Raises:
        BadInputError: If there is no such precision.
    """
    if precision not in DTYPES:
        raise BadInputError(f"precision must be one of {', '.join(DTYPES)}, got {precision!r}")
    return DTYPES[precision]


def ready(model: SourceModel, request: ModelRequest, precision: str) -> SourceModel:
    """Return a model that a loader made, with what the user says of it, after a look at its classes.

    Raises:
        IncompatibleError: If the classes are not what the model can tell apart.
    """
    _check_classes(request, model)
    expecting(model, request.options)
    for caution in model.cautions:
        warnings.warn(caution, Caution, stacklevel=3)
    if precision == "bfloat16":
        model.round_products(torch.bfloat16)
    return model


def _check_classes(request: ModelRequest, model: SourceModel) -> None:
    """Refuse classes that a model cannot tell apart by what is known of them.

    Raises:
        IncompatibleError: For classes without names and a model that goes by names, or a loader that takes no classes
            by their folders.
    """
    if model.kind == "clip" and request.class_folders and all(one.isdecimal() for one in model.class_names):
        raise IncompatibleError(
            f"{request.name!r} compares images with the names of their classes, got the numbers "
            f"{', '.join(model.class_names[:3])}, ...; name them with class_names= or class_map=",
            options=("class_names", "class_map"),
        )
    asked = request.class_folders or request.options.class_names or request.options.class_map
    if model.kind == "classifier" and asked and request.class_indices is None and not model.binding:
        raise PluginError(
            f"the loader of {request.name!r} must bind its outputs with tta_bench.models.classifier.bound, since the "
            "classes of this dataset are matched by what they are called"
        )
