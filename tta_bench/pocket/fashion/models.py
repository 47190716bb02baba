# SPDX-License-Identifier: Apache-2.0
"""Source models from the two networks that are shipped for pocket-fashion."""

from __future__ import annotations

from tta_bench.data.catalogue.mnist import CLOTHES
from tta_bench.models.loading import ModelRequest
from tta_bench.models.source import SourceModel
from tta_bench.pocket.fashion.nets import MEAN, STD, FashionName, build_fashion
from tta_bench.pocket.models import check_bare, classifier_source


def load_pocket_fashion_bn(request: ModelRequest) -> SourceModel:
    """Load pocket-fashion-bn, a shipped 78,000-parameter residual network with BatchNorm for Fashion-MNIST."""
    return _load(request, "pocket-fashion-bn")


def load_pocket_fashion_gn(request: ModelRequest) -> SourceModel:
    """Load pocket-fashion-gn, a shipped 78,000-parameter residual network with GroupNorm for Fashion-MNIST."""
    return _load(request, "pocket-fashion-gn")


def _load(request: ModelRequest, name: FashionName) -> SourceModel:
    check_bare(request)
    model = build_fashion(name, pretrained=request.pretrained, seed=request.seed)
    return classifier_source(request, model, MEAN, STD, CLOTHES)
