# SPDX-License-Identifier: Apache-2.0
"""A user's own images and classifier: painted images of four classes, and weights that tell them apart."""

import json

import numpy as np
import timm
import torch
from PIL import Image

from tta_bench.data.images.preprocess import Preprocess
from tta_bench.models.loading import load_model

COLOURS = {"ant": (200, 40, 40), "bee": (40, 200, 40), "cat": (40, 40, 200), "dog": (190, 190, 60)}
OUTPUTS = ("dog", "ant", "cat", "bee")
"""The classes in the order of the classifier's outputs, which is not that of the folders."""
ARCH = "timm/test_efficientnet"
EXPECTS = (
    "--mean",
    "0.5",
    "--std",
    "0.5",
    "--input-size",
    "32",
    "--crop",
    "1",
    "--interpolation",
    "bilinear",
)
EACH = 6


def picture(name, number):
    noise = np.random.default_rng(number).normal(0, 25, (32, 32, 3))
    return Image.fromarray(np.clip(noise + COLOURS[name], 0, 255).astype(np.uint8))


def write_images(folder, names=None):
    """Write images into class folders; ``names`` maps classes to what their folders are called."""
    for name in COLOURS:
        place = folder / (names or {}).get(name, name)
        place.mkdir(parents=True)
        for number in range(EACH):
            picture(name, number).save(place / f"{number}.png")
    return folder


def fitted_weights(names=OUTPUTS):
    """Return a state dict of ARCH with one output for each name, fitted by least squares to the painted images."""
    options = {"options": expected(), "pretrained": False}
    source = load_model(ARCH, names, **options)
    images = [
        (names.index(name), picture(name, 100 + i)) for name in COLOURS if name in names for i in range(20)
    ]
    x = torch.stack([Preprocess((32, 32), 32)(image) for _, image in images]).float() / 255
    features = source.encode(x).double()
    target = torch.full((len(images), len(names)), -1.0, dtype=torch.float64)
    target[range(len(images)), [label for label, _ in images]] = 1.0
    ones = torch.ones(len(images), 1, dtype=torch.float64)
    solved = torch.linalg.lstsq(torch.cat([features, ones], 1), target, driver="gelsd").solution.float()
    weights = {name: value.clone() for name, value in {**source.params, **source.buffers}.items()}
    own = timm.create_model("test_efficientnet", num_classes=len(names)).state_dict()
    weights = {name: weights.get(name, value) for name, value in own.items()}
    return weights | {"classifier.weight": solved[:-1].T.contiguous(), "classifier.bias": solved[-1].clone()}


def expected():
    from tta_bench.spec import ModelOptions

    return ModelOptions(mean=(0.5,), std=(0.5,), input_size=(32,), crop=1.0, interpolation="bilinear")


def manifests(folder):
    return [json.loads(path.read_text()) for path in sorted(folder.glob("cells/*/manifest.json"))]
