# SPDX-License-Identifier: Apache-2.0
"""Everything that a method may ask for, made from a seed: images, views, features, draws, source split."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from tta_bench.method import Inputs, Method, Task
from tta_bench.models.source import SourceModel
from tta_bench.spec import counter_seed

SPLIT_SIZE = 24
REPLAY_SIZE = 6
STREAM_LENGTH = 64
SPLIT_NEEDS = frozenset({"source_images", "source_labels", "source_replay"})


def tiny_inputs(
    source: SourceModel, n: int, *, method: Method, seed: int = 0, per_image: bool | None = None
) -> Inputs:
    """Return one batch with all that the method asks for, as the runner would hand it over.

    Args:
        source: The source model.
        n: N.
        method: Whose card, views and draws decide what is in it.
        seed: Of the images and draws; equal seeds give equal batches.
        per_image: Whether draws are made for each image (as under an ``image`` reset) or once for the step;
            None goes by the card.
    """
    card, policy = method.card, method.view_policy()
    images = tiny_images(source, n, seed)
    views = None if policy is None else _views(images, policy.count, seed)
    features = view_features = None
    if "features" in card.needs:
        with torch.no_grad():
            if views is None:
                features = source.encode(images)
            else:
                view_features = source.encode(views.flatten(0, 1)).reshape(*views.shape[:2], -1)
                features = view_features[:, 0]
    alone = card.reset == "image" if per_image is None else per_image
    inputs = Inputs(
        images, views, features, view_features, tiny_draws(source, n, method, seed, per_image=alone)
    )
    if "source_replay" not in card.needs:
        return inputs
    replay = TinySplit(source).batch(seed, REPLAY_SIZE)
    labels = replay[1] if "source_labels" in card.needs else None
    return inputs._replace(source_images=replay[0], source_labels=labels)


def tiny_task(source: SourceModel, method: Method, *, batch_size: int = 4) -> Task:
    """Return what the method's `init` may know, with a tiny source split where its card needs one."""
    needs = method.card.needs
    return Task(
        num_classes=source.num_classes,
        class_names=source.class_names,
        batch_size=batch_size,
        stream_length=STREAM_LENGTH if "stream_length" in needs else None,
        source=TinySplit(source) if needs & SPLIT_NEEDS else None,
    )


def tiny_images(source: SourceModel, n: int, seed: int) -> Tensor:
    """Return images (N, C, H, W) in [0, 1]: a colour, a gradient and noise, different for each image."""
    generator = torch.Generator().manual_seed(counter_seed("tiny-images", seed))
    channels, height, width = source.image_shape
    colour, slope = (
        torch.rand(n, channels, 1, 1, generator=generator, dtype=torch.float64) for _ in range(2)
    )
    ramp = torch.linspace(-0.5, 0.5, width, dtype=torch.float64)
    noise = torch.rand(n, channels, height, width, generator=generator, dtype=torch.float64) - 0.5
    images = colour + slope * ramp + 0.6 * noise
    return images.clamp(0, 1).to(source.dtype).to(source.device)


def tiny_draws(source: SourceModel, n: int, method: Method, seed: int, *, per_image: bool) -> Any:
    """Return the method's draws for a batch on the model's device, joined over the images where each is drawn alone."""
    if not per_image:
        return _moved(method.draw(source, n, generator(source, method, seed)), source)
    each = [method.draw(source, 1, generator(source, method, seed, index)) for index in range(n)]
    if all(one is None for one in each):
        return None
    return _moved(pytree.tree_map(lambda *leaves: torch.cat(leaves), *each), source)


def _moved(draws: Any, source: SourceModel) -> Any:
    """Return draws on the device of a model, as the runner hands them over."""
    return pytree.tree_map(lambda x: x.to(source.device) if isinstance(x, Tensor) else x, draws)


def generator(source: SourceModel, method: Method, *key: int) -> torch.Generator:
    """Return the random generator of one draw, on the device that the card names."""
    device = source.device if method.card.draw_device == "device" else torch.device("cpu")
    return torch.Generator(device).manual_seed(counter_seed("tiny-draw", *key))


class TinySplit:
    """A source split of 24 labelled images, as `Task.source` hands it to a method."""

    def __init__(self, source: SourceModel) -> None:
        self._images = tiny_images(source, SPLIT_SIZE, seed=1000)
        self._labels = torch.arange(SPLIT_SIZE, device=source.device) % source.num_classes

    def __len__(self) -> int:
        """Return the number of images."""
        return SPLIT_SIZE

    def batch(self, index: int, size: int) -> tuple[Tensor, Tensor]:
        """Return images (M, C, H, W) and labels (M,) of batch ``index``, wrapping at the end."""
        rows = torch.arange(index * size, (index + 1) * size, device=self._images.device) % SPLIT_SIZE
        return self._images[rows], self._labels[rows]


def _views(images: Tensor, count: int, seed: int) -> Tensor:
    """Return views (N, V, C, H, W): the image itself, then shifted, flipped and dimmed copies."""
    generator = torch.Generator().manual_seed(counter_seed("tiny-views", seed))
    made = [images]
    for index in range(1, count):
        shift = torch.randint(-3, 4, (2,), generator=generator).tolist()
        copy = images.roll(shift, (-2, -1))
        copy = copy.flip(-1) if index % 2 else copy
        made.append(copy * (0.7 + 0.3 * float(torch.rand((), generator=generator))))
    return torch.stack(made, 1)
