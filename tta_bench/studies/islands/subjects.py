# SPDX-License-Identifier: Apache-2.0
"""Whose layers are looked at: a network's, a fitted student's, and the controls beside them."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor, nn

from tta_bench.data.images.preprocess import Preprocess
from tta_bench.errors import BadInputError
from tta_bench.method import Inputs
from tta_bench.models.loading import load_model
from tta_bench.models.maps import MapLayer, Visit, chosen_layers, map_layers, visit_maps
from tta_bench.models.source import SourceModel
from tta_bench.models.video import NAME as VIDEO
from tta_bench.models.video import load_still_video
from tta_bench.spec import counter_seed

CLASSES = ("this", "that")
"""Any two classes: the head of a network has no part in its maps."""
TILES = 14
"""Patches along a side that the shuffled control cuts an image of 224 pixels into; at least 4 pixels wide."""


class Still(NamedTuple):
    """One image.

    Attributes:
        name: Of its file, or its id in its dataset.
        load: From a resize and crop to the uint8 input (3, H, W).
    """

    name: str
    load: Callable[[Preprocess], Tensor]


class Subject(Protocol):
    """Anything with layers that each give a map of features."""

    @property
    def model(self) -> str:
        """Name for tables."""

    @property
    def control(self) -> str:
        """The change made to the model; empty for the model itself."""

    @property
    def layers(self) -> tuple[str, ...]:
        """Label of each layer."""

    @property
    def indices(self) -> tuple[int, ...]:
        """Number of each layer in its network, or the updates behind a student."""

    def visit(self, still: Still, visit: Visit) -> None:
        """Hand the map (1, H, W, D) of every layer over, one after the other."""


@dataclass(frozen=True)
class NetworkLayers:
    """The layers of a network.

    Attributes:
        model: Its name.
        root: The network whose module names the layers have.
        run: Runs it on images (N, 3, H, W) in [0, 1].
        preprocess: The resize and crop of its input.
        parts: The layers that are looked at.
        indices: Their numbers.
        control: What is changed about it.
        shuffle: Seed of the shuffle of the image's patches; None leaves the image as it is.
    """

    model: str
    root: nn.Module
    run: Callable[[Tensor], object]
    preprocess: Preprocess
    parts: tuple[MapLayer, ...]
    indices: tuple[int, ...]
    control: str = ""
    shuffle: int | None = None

    @property
    def layers(self) -> tuple[str, ...]:
        """Names of the layers' modules."""
        return tuple(part.name for part in self.parts)

    def visit(self, still: Still, visit: Visit) -> None:
        """Hand the map (1, H, W, D) of every layer over, one after the other."""
        x = still.load(self.preprocess)[None].float() / 255
        if self.shuffle is not None:
            generator = torch.Generator().manual_seed(counter_seed("shuffle", self.shuffle, still.name))
            x = shuffled_patches(x, generator)
        visit_maps(self.root, self.parts, lambda: self.run(x), visit, self.model, stop=True)


@dataclass(frozen=True)
class NoiseLayers:
    """White noise of the shapes of another subject's maps.

    Attributes:
        of: The other subject.
        seed: Of the noise.
        control: What it is.
    """

    of: NetworkLayers
    seed: int
    control: str = "white noise"

    @property
    def model(self) -> str:
        """Name of the other subject."""
        return self.of.model

    @property
    def layers(self) -> tuple[str, ...]:
        """Labels of the other subject's layers."""
        return self.of.layers

    @property
    def indices(self) -> tuple[int, ...]:
        """Numbers of the other subject's layers."""
        return self.of.indices

    def visit(self, still: Still, visit: Visit) -> None:
        """Hand a map of noise over for every layer."""

        def noise(index: int, maps: Tensor) -> None:
            generator = torch.Generator().manual_seed(counter_seed("noise", self.seed, still.name, index))
            visit(index, torch.randn(maps.shape, generator=generator, dtype=torch.float64))

        self.of.visit(still, noise)


@dataclass(frozen=True)
class StudentLayers:
    """The locations of a student that a method fits to the image, after some numbers of updates.

    Attributes:
        model: Name for tables.
        method: A method with `islands`, as APM has it.
        source: Its teacher.
        indices: Numbers of updates.
        seed: Of the draws.
        control: What is changed about it.
    """

    model: str
    method: Any
    source: SourceModel
    indices: tuple[int, ...]
    seed: int = 0
    control: str = ""

    @property
    def layers(self) -> tuple[str, ...]:
        """One label for each number of updates."""
        return tuple(f"{count} update{'s' * (count != 1)}" for count in self.indices)

    def visit(self, still: Still, visit: Visit) -> None:
        """Hand the map (1, H, W, D) of the student's locations over after each number of updates."""
        for index, updates in enumerate(self.indices):
            found = self.fitted(still, updates)
            visit(index, found.features.permute(0, 2, 3, 1))

    def fitted(self, still: Still, updates: int, *, colours: bool = False) -> Any:
        """Return what the locations hold after so many updates, from the weights that a run gives this image."""
        x = still.load(self.source.preprocess)[None].to(self.source.dtype) / 255
        generator = torch.Generator()
        with torch.no_grad():
            features = self.source.encode(x)
        generator.manual_seed(counter_seed("draw", self.seed, "image", still.name))
        draws = self.method.draw(self.source, 1, generator)
        chosen = replace(self.method, iterations=updates + 1, read="published")
        return chosen.islands(
            self.source, Inputs(images=x, features=features, draws=draws), generator, colours
        )


def network_layers(
    model: str,
    *,
    wanted: Sequence[int] | None = None,
    pretrained: bool = True,
    seed: int = 0,
    control: str = "",
) -> NetworkLayers:
    """Load a model and return its layers.

    Args:
        model: Name as on the command line, or ``torchvision/mvit_v2_s``, which sees the image as a still video.
        wanted: Numbers of the layers; None for all.
        pretrained: False for random weights drawn from `seed`.
        seed: Of random weights.
        control: What is changed about it.

    Raises:
        IncompatibleError: If no layer has a grid of locations.
        BadInputError: If there is no such layer.
    """
    run: Callable[[Tensor], object]
    if model == VIDEO:
        still = load_still_video(pretrained=pretrained, seed=seed)
        root, run, preprocess = still.network, still, still.preprocess
    else:
        source = load_model(model, CLASSES, class_indices=(0, 1), pretrained=pretrained, seed=seed)
        root, run, preprocess = source.network, source.encode, source.preprocess
    parts = map_layers(root)
    indices = chosen_layers(parts, wanted, model)
    return NetworkLayers(
        model, root, run, preprocess, tuple(parts[index] for index in indices), indices, control=control
    )


def student_layers(
    method: Any, model: str, updates: Sequence[int], *, pretrained: bool, seed: int
) -> StudentLayers:
    """Return the locations of the students that a method fits to its teacher's feature.

    Raises:
        BadInputError: If the method fits no student with locations, or a number of updates is below 0.
    """
    name = type(method).__name__.lower()
    if not hasattr(method, "islands"):
        raise BadInputError(f"islands of a student need a method that fits one, such as apm, got {name}")
    if any(count < 0 for count in updates):
        raise BadInputError(f"updates must be 0 or more, got {min(updates)}")
    source = load_model(model, CLASSES, class_indices=(0, 1), pretrained=pretrained, seed=seed)
    return StudentLayers(f"{name} of {model}", method, source, tuple(sorted(set(updates))), seed)


def controls(subject: NetworkLayers, *, pretrained: bool, seed: int) -> list[Subject]:
    """Return what stands beside a model in every table: random weights, white noise and shuffled patches.

    Random weights are left out where the model itself has them.
    """
    found: list[Subject] = []
    if pretrained:
        found.append(
            network_layers(
                subject.model, wanted=subject.indices, pretrained=False, seed=seed, control="random weights"
            )
        )
    found.append(NoiseLayers(subject, seed))
    found.append(replace(subject, control="shuffled patches", shuffle=seed))
    return found


def shuffled_patches(x: Tensor, generator: torch.Generator) -> Tensor:
    """Return images (N, C, H, W) whose square patches are permuted, the same way in all."""
    side = patch_side(*x.shape[-2:])
    rows, columns = x.shape[-2] // side, x.shape[-1] // side
    patches = torch.unflatten(torch.unflatten(x, 3, (columns, side)), 2, (rows, side)).transpose(3, 4)
    flat = patches.flatten(2, 3)[:, :, torch.randperm(rows * columns, generator=generator)]
    return torch.unflatten(flat, 2, (rows, columns)).transpose(3, 4).flatten(4, 5).flatten(2, 3)


def patch_side(height: int, width: int) -> int:
    """Return the side of the patches, pixels: the largest divisor of both sides up to a 14th, or up to 4."""
    common, most = math.gcd(height, width), max(4, min(height, width) // TILES)
    return next(side for side in range(most, 0, -1) if common % side == 0)
