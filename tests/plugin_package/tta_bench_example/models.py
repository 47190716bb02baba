# SPDX-License-Identifier: Apache-2.0
"""A model family: small networks with random weights, for trying things out."""

from __future__ import annotations

import torch
from torch import nn

from tta_bench.data.images.preprocess import Preprocess
from tta_bench.errors import UnknownNameError
from tta_bench.models.classifier import Classifier
from tta_bench.models.loading import ModelRequest
from tta_bench.models.source import SourceModel

WIDTHS = {"small": 8, "wide": 32}


def load_example(request: ModelRequest) -> SourceModel:
    """Load a random two-layer network, e.g. example/small.

    Raises:
        UnknownNameError: If the name after the slash is none of the widths.
    """
    if request.rest not in WIDTHS:
        raise UnknownNameError("example model", request.rest, WIDTHS)
    width, classes = WIDTHS[request.rest], len(request.class_names)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(request.seed)
        network = nn.Sequential(
            nn.Conv2d(3, width, 3, stride=2, padding=1),
            nn.BatchNorm2d(width),
            nn.ReLU(),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Linear(width, classes),
        )
    return SourceModel(
        Classifier(network, classes),
        name=request.name,
        kind="classifier",
        class_names=request.class_names,
        mean=(0.5, 0.5, 0.5),
        std=(0.25, 0.25, 0.25),
        preprocess=Preprocess((32, 32)),
        dtype=request.dtype,
        device=request.device,
        pretrained=False,
    )
