# SPDX-License-Identifier: Apache-2.0
"""Source models from torchvision, with the preprocessing that belongs to their weights."""

from __future__ import annotations

from typing import Any

from torch import nn
from torchvision import models
from torchvision.models import WeightsEnum

from tta_bench.data.images.preprocess import Preprocess
from tta_bench.errors import UnknownNameError
from tta_bench.models.checkpoints import filled
from tta_bench.models.classifier import bound
from tta_bench.models.loading import ModelRequest, is_file, made_outputs
from tta_bench.models.source import SourceModel
from tta_bench.models.weights import filter_of, misfit, seeded, unreachable

WITH_AUXILIARY_HEADS = ("googlenet", "inception_v3")


def load_torchvision(request: ModelRequest) -> SourceModel:
    """Load a torchvision classifier, e.g. torchvision/resnet50:IMAGENET1K_V1, or torchvision/resnet50:FILE.

    Without a tag the library's default weights are meant. With a file the classifier has as many outputs as the file;
    without trained weights as many as there are classes, unless `class_indices` choose among the model's own.

    Raises:
        UnknownNameError: If torchvision has no such architecture or weights.
        IncompatibleError: If its outputs are not these classes or it does not end in a linear layer.
        BadInputError: If the weights cannot be fetched or do not fit.
    """
    architecture, _, choice = request.rest.partition(":")
    known = models.list_models(module=models)
    if architecture not in known:
        raise UnknownNameError("torchvision architecture", architecture, known)
    file = choice if is_file(choice) else ""
    weights = weights_of(architecture, "" if file else choice)
    model, names = build(request, architecture, file, weights)
    preset: Any = weights.transforms()
    (side,), (resize,) = preset.crop_size, preset.resize_size
    return SourceModel(
        bound(model, request, names),
        name=request.name,
        kind="classifier",
        class_names=request.class_names,
        mean=preset.mean,
        std=preset.std,
        preprocess=Preprocess((side, side), resize, filter_of(preset.interpolation.value)),
        dtype=request.dtype,
        device=request.device,
        pretrained=request.pretrained,
    )


def weights_of(architecture: str, tag: str) -> WeightsEnum:
    """Return the weights of a tag, or the default ones.

    Raises:
        UnknownNameError: If there is no such tag.
    """
    tags = models.get_model_weights(architecture)
    if tag in ("", "DEFAULT"):
        return tags["DEFAULT"]
    if tag not in tags.__members__:
        raise UnknownNameError(f"weights of torchvision/{architecture}", tag, tags.__members__)
    return tags[tag]


def build(
    request: ModelRequest, architecture: str, file: str, weights: WeightsEnum
) -> tuple[nn.Module, tuple[str, ...]]:
    """Return the model with its weights: from a file, from torchvision's address, or random; and names in a file.

    Raises:
        BadInputError: If the weights cannot be fetched or do not fit.
    """
    if file and request.pretrained:
        model, read = filled(
            lambda outputs: create(request, architecture, outputs), file, request.name, made_outputs(request)
        )
        return model, read.class_names
    if not request.pretrained:
        return create(request, architecture, made_outputs(request)), ()
    try:
        return create(request, architecture, None, weights), ()
    except OSError as error:
        raise unreachable(request.name, weights.url, error, "TORCH_HOME") from error
    except RuntimeError as error:
        raise misfit(request.name, weights.url, error) from error


def create(
    request: ModelRequest, architecture: str, outputs: int | None, weights: WeightsEnum | None = None
) -> nn.Module:
    """Return a model of torchvision with so many outputs, None for its own; random without weights."""
    options: dict[str, Any] = {} if outputs is None else {"num_classes": outputs}
    if architecture in WITH_AUXILIARY_HEADS:
        options |= {"aux_logits": False} | ({} if weights else {"init_weights": True})
    with seeded(request.seed):
        model: nn.Module = models.get_model(architecture, weights=weights, progress=False, **options)
    return model
