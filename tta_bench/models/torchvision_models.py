# SPDX-License-Identifier: Apache-2.0
"""Source models from torchvision, with the preprocessing that belongs to their weights."""

from __future__ import annotations

from typing import Any

from torch import nn
from torchvision import models
from torchvision.models import WeightsEnum

from tta_bench.data.images.preprocess import Preprocess
from tta_bench.errors import UnknownNameError
from tta_bench.models.checkpoints import fill
from tta_bench.models.classifier import Classifier
from tta_bench.models.loading import ModelRequest, is_file
from tta_bench.models.source import SourceModel
from tta_bench.models.weights import filter_of, misfit, seeded, unreachable

WITH_AUXILIARY_HEADS = ("googlenet", "inception_v3")


def load_torchvision(request: ModelRequest) -> SourceModel:
    """Load a torchvision classifier, e.g. torchvision/resnet50:IMAGENET1K_V1, or torchvision/resnet50:FILE.

    Without a tag the library's default weights are meant. Without trained weights, and with a file, the
    classifier has as many outputs as there are classes unless `class_indices` choose among the model's own.

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
    model = build(request, architecture, file, weights)
    preset: Any = weights.transforms()
    (side,), (resize,) = preset.crop_size, preset.resize_size
    return SourceModel(
        Classifier(model, len(request.class_names), request.class_indices),
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


def build(request: ModelRequest, architecture: str, file: str, weights: WeightsEnum) -> nn.Module:
    """Return the model with its weights: from a file, from torchvision's address, or random.

    Raises:
        BadInputError: If the weights cannot be fetched or do not fit.
    """
    options: dict[str, Any] = {}
    fetched = request.pretrained and not file
    if not fetched and request.class_indices is None:
        options["num_classes"] = len(request.class_names)
    if architecture in WITH_AUXILIARY_HEADS:
        options |= {"aux_logits": False} | ({} if fetched else {"init_weights": True})
    try:
        with seeded(request.seed):
            model: nn.Module = models.get_model(
                architecture, weights=weights if fetched else None, progress=False, **options
            )
    except OSError as error:
        raise unreachable(request.name, weights.url, error, "TORCH_HOME") from error
    except RuntimeError as error:
        if not fetched:
            raise
        raise misfit(request.name, weights.url, error) from error
    if file and request.pretrained:
        fill(model, file, request.name)
    return model
