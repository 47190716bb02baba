# SPDX-License-Identifier: Apache-2.0
"""The images a model expects, where the user states it instead of the model's library."""

from __future__ import annotations

import math
from dataclasses import replace

import torch

from tta_bench.data.images.preprocess import Preprocess
from tta_bench.models.source import SourceModel
from tta_bench.models.weights import filter_of
from tta_bench.spec import ModelOptions
from tta_bench.spec.model_options import per_channel


def expecting(model: SourceModel, options: ModelOptions) -> None:
    """Make a model that was just loaded expect images as the user says; its protocol card tells it.

    Args:
        model: The model.
        options: What was said.
    """
    for name, values in (("mean", options.mean), ("std", options.std)):
        if values:
            setattr(model, name, torch.tensor(per_channel(values), dtype=model.dtype, device=model.device))
    model.preprocess = prepared(model.preprocess, options)


def prepared(own: Preprocess, options: ModelOptions) -> Preprocess:
    """Return a resize and crop with what the user says in place of its own.

    A new size keeps the share that the crop takes, unless that is given too. For an oblong input the image is resized
    without keeping its aspect.

    Args:
        own: As the model's library knows it.
        options: What was said.
    """
    filtered = (
        own if options.interpolation is None else replace(own, interpolation=filter_of(options.interpolation))
    )
    size = (options.input_size[0], options.input_size[-1]) if options.input_size else own.size
    share = options.crop if options.crop is not None else _share(own)
    if share is None:  # squashed to the size, or cropped alone
        return replace(filtered, size=size)
    tall, wide = (math.floor(side / share) for side in size)
    kept = isinstance(own.resize, tuple) and options.crop is None
    return replace(filtered, size=size, resize=tall if tall == wide and not kept else (tall, wide))


def _share(own: Preprocess) -> float | None:
    """Return the share of the resized image that a crop keeps; None where nothing is cropped after a resize."""
    if not own.resize:
        return None
    return min(own.size) / own.resize if isinstance(own.resize, int) else own.size[0] / own.resize[0]
