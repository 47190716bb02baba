# SPDX-License-Identifier: Apache-2.0
"""Source models from the small PocketScenes networks that are shipped with the package."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from tta_bench.data.images.preprocess import Preprocess
from tta_bench.errors import BadInputError
from tta_bench.models.classifier import bound
from tta_bench.models.clip import clip_source
from tta_bench.models.loading import ModelRequest
from tta_bench.models.source import SourceModel
from tta_bench.pocket.nets import MEAN, STD, Colour
from tta_bench.pocket.scenes.spec import CLASS_NAMES
from tta_bench.pocket.zoo import CLIP_NAME, VIT_CLIP_NAME, ClassifierName, ClipName, build, build_clip

SIDE = 32


def load_pocket_bn(request: ModelRequest) -> SourceModel:
    """Load pocket-bn, a shipped 78,000-parameter residual network with BatchNorm for PocketScenes."""
    return _classifier(request, "pocket-bn")


def load_pocket_gn(request: ModelRequest) -> SourceModel:
    """Load pocket-gn, a shipped 78,000-parameter residual network with GroupNorm for PocketScenes."""
    return _classifier(request, "pocket-gn")


def load_pocket_clip(request: ModelRequest) -> SourceModel:
    """Load pocket-clip, a shipped 233,000-parameter CLIP of PocketScenes; it takes any class names.

    Raises:
        BadInputError: If something follows the name.
    """
    return _clip(request, CLIP_NAME)


def load_pocket_vit_clip(request: ModelRequest) -> SourceModel:
    """Load pocket-vit-clip, pocket-clip with a small vision transformer (class token, 8x8 patch tokens) as its tower.

    Raises:
        BadInputError: If something follows the name.
    """
    return _clip(request, VIT_CLIP_NAME)


def _clip(request: ModelRequest, name: ClipName) -> SourceModel:
    check_bare(request)
    model, tokenizer = build_clip(name, pretrained=request.pretrained, seed=request.seed)
    return clip_source(request, model, tokenizer)


def _classifier(request: ModelRequest, name: ClassifierName) -> SourceModel:
    check_bare(request)
    return classifier_source(
        request, build(name, pretrained=request.pretrained, seed=request.seed), MEAN, STD, CLASS_NAMES
    )


def classifier_source(
    request: ModelRequest, model: nn.Module, mean: Colour, std: Colour, class_names: Sequence[str]
) -> SourceModel:
    """Return the source model of a pocket classifier of 32x32 images.

    Args:
        request: The classes that it is bound to, and all else that was asked for.
        model: The network.
        mean: Of its normalisation, per channel.
        std: The same.
        class_names: Of its outputs in their order.

    Raises:
        IncompatibleError: If it has another number of classes.
    """
    return SourceModel(
        bound(model, request, class_names),
        name=request.name,
        kind="classifier",
        class_names=request.class_names,
        mean=mean,
        std=std,
        preprocess=Preprocess((SIDE, SIDE), SIDE, "bilinear"),
        dtype=request.dtype,
        device=request.device,
        pretrained=request.pretrained,
    )


def check_bare(request: ModelRequest) -> None:
    """Refuse a name with something behind it.

    Raises:
        BadInputError: If something follows the name.
    """
    if request.rest:
        raise BadInputError(
            f"expected nothing after the name of a pocket model, got {request.name!r}; leave out {request.rest!r}"
        )
