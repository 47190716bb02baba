# SPDX-License-Identifier: Apache-2.0
"""Views of images by the seeds of a run, and features of images and views."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from tta_bench.data.images.views import make_views, view_numbers
from tta_bench.engine.meter import Meter
from tta_bench.engine.shrink import EncodedInParts
from tta_bench.method import ViewPolicy
from tta_bench.models.source import SourceModel
from tta_bench.optim import widest
from tta_bench.spec import counter_seed

SIZES = (1, 8, 64)
"""Numbers of images or views that may be encoded at once."""


def seeded_views(images: Tensor, ids: Sequence[str], policy: ViewPolicy, seed: int, recipe: str) -> Tensor:
    """Return views (N, V, C, H, W) whose random numbers depend on seed and image id alone."""
    generator, drawn = torch.Generator(), []
    for image_id in ids:
        generator.manual_seed(counter_seed("view", seed, image_id))
        drawn.append(view_numbers(policy.kind, policy.count, generator))
    pixels = images if widest(images.device) == torch.float64 else images.cpu()
    numbers = torch.stack(drawn).to(pixels.device)
    return make_views(pixels, numbers, policy.kind, recipe=recipe).to(images.device)


def images_encoded_at_once(batch_size: int, views: int) -> int:
    """Return how many images are encoded in one call of the model.

    It depends on the nearest of a few sizes, not on the batch size itself, so that runs share features; images are
    encoded one at a time where they arrive one at a time, so that the time of one is a latency.

    Args:
        batch_size: Of the stream.
        views: Of each image; 1 is the image alone.
    """
    nearest = min(SIZES, key=lambda size: max(size / batch_size, batch_size / size))
    return max(1, min(nearest, SIZES[-1] // views))


class Encoding(NamedTuple):
    """Features of a few images, and the seconds that they took in all.

    Attributes:
        features: (N, D), or (N, V, D) where there are views, of which the first is the image.
        view_s: Of making views; None without any.
        encode_s: Of encoding.
    """

    features: Tensor
    view_s: float | None
    encode_s: float


class Encoder:
    """Encode images as one method's policy of views wants them.

    Attributes:
        parts: How many are encoded at once, where memory ran out.

    Args:
        source: The source model.
        policy: How views are made; None, or a single view: of the image alone.
        seed: Of the views.
        recipe: By which views are made; see `make_views`.
    """

    def __init__(self, source: SourceModel, policy: ViewPolicy | None, seed: int, recipe: str) -> None:
        self.source, self.seed, self.recipe = source, seed, recipe
        self.policy = policy if policy is not None and policy.count > 1 else None
        self._meter, self.parts = Meter(source.device), EncodedInParts()

    @property
    def views(self) -> int:
        """V; 1 is the image alone."""
        return self.policy.count if self.policy else 1

    @torch.no_grad()
    def __call__(self, pixels: Tensor, ids: Sequence[str]) -> Encoding:
        """Return the features of images (N, 3, H, W) uint8."""
        source = self.source
        images = pixels.to(source.device).to(source.dtype) / 255
        self._meter.take()
        if self.policy is not None:
            with self._meter.phase("view"):
                images = seeded_views(images, ids, self.policy, self.seed, self.recipe).flatten(0, 1)
        with self._meter.phase("encode"):
            features = self.parts(source.encode, images)
        taken = self._meter.take()
        if self.policy is not None:
            features = torch.unflatten(features, 0, (len(pixels), self.policy.count))
        return Encoding(features, taken.get("view"), taken["encode"])
