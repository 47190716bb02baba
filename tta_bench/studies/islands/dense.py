# SPDX-License-Identifier: Apache-2.0
"""A student whose locations are fitted to the teacher's map: does it interpolate between locations or memorise them?"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from tta_bench.errors import BadInputError, IncompatibleError
from tta_bench.metrics.accuracy import Interval
from tta_bench.metrics.islands import Floats
from tta_bench.models.maps import Visit
from tta_bench.spec import counter_seed
from tta_bench.studies.islands.measure import mean_of
from tta_bench.studies.islands.subjects import NetworkLayers, Still

HELD_OUT = 4
"""One location in so many is held out of the fit."""


class DenseRow(NamedTuple):
    """Cosine of a student's locations with the teacher's after some updates, on one image.

    Attributes:
        image: Name of the image.
        model: Name of the student and its teacher.
        layer: Layer of the teacher.
        updates: Before the locations are read.
        fitted: Mean cosine at the locations that it was fitted to.
        held_out: Mean cosine at the locations that were held out.
        mean_fitted: Cosine at held-out locations of the mean of the fitted targets: the control without a student.
    """

    image: str
    model: str
    layer: int
    updates: int
    fitted: float
    held_out: float
    mean_fitted: float


@dataclass(frozen=True)
class DenseLayers:
    """The locations of a student after some numbers of updates towards the teacher's map.

    Attributes:
        model: Name for tables.
        method: A method with `fit_locations`, as APM has it.
        teacher: The one layer of the teacher that is the target.
        indices: Numbers of updates.
        seed: Of the draws and of the locations that are held out.
        control: What is changed about it.
    """

    model: str
    method: Any
    teacher: NetworkLayers
    indices: tuple[int, ...]
    seed: int = 0
    control: str = ""

    @property
    def layers(self) -> tuple[str, ...]:
        """One label for each number of updates."""
        return tuple(f"{count} update{'s' * (count != 1)}" for count in self.indices)

    def visit(self, still: Still, visit: Visit) -> None:
        """Hand the map (1, H, W, D) of the student's locations over after each number of updates."""
        target, predictions, _ = self._course(still)
        for index, updates in enumerate(self.indices):
            maps = torch.unflatten(predictions[updates].mT, 1, tuple(target.shape[1:3]))
            visit(index, maps)

    def rows(self, still: Still) -> list[DenseRow]:
        """Return the cosines after each number of updates."""
        target, predictions, kept = self._course(still)
        wanted = target.flatten(1, 2)[0]
        guess = F.cosine_similarity(wanted[kept].mean(0, keepdim=True), wanted[~kept], dim=-1).mean()
        found = []
        for updates in self.indices:
            cosine = F.cosine_similarity(predictions[updates][0].T, wanted, dim=-1).double()
            found.append(
                DenseRow(
                    still.name, self.model, self.teacher.indices[0], updates, float(cosine[kept].mean()),
                    float(cosine[~kept].mean()), float(guess),
                )
            )  # fmt: skip
        return found

    def error_map(self, still: Still) -> Floats:
        """Return one less the cosine with the teacher (H, W) after the last number of updates."""
        target, predictions, _ = self._course(still)
        cosine = F.cosine_similarity(predictions[-1][0].T, target.flatten(1, 2)[0], dim=-1).double()
        return (1 - cosine).reshape(tuple(target.shape[1:3])).numpy()

    def _course(self, still: Still) -> tuple[Tensor, Tensor, Tensor]:
        """Return the teacher's map (1, H, W, D), predictions (U + 1, 1, D, L), and which locations were fitted (L,)."""
        maps: list[Tensor] = []
        self.teacher.visit(still, lambda index, found: maps.append(found.clone()))
        (target,) = maps
        places = target.shape[1] * target.shape[2]
        if places < HELD_OUT:
            raise IncompatibleError(
                f"layer {self.teacher.indices[0]} of {self.teacher.model!r} has {places} locations, too few to hold "
                f"one in {HELD_OUT} out; choose another layer"
            )
        generator = torch.Generator().manual_seed(counter_seed("held-out", self.seed, still.name))
        kept = torch.ones(places, dtype=torch.bool)
        kept[torch.randperm(places, generator=generator)[: places // HELD_OUT]] = False
        shown = target.flatten(1, 2).masked_fill(~kept[None, :, None], torch.nan)
        shown = torch.unflatten(shown, 1, tuple(target.shape[1:3]))
        size = self.method.location_student(target).size
        generator.manual_seed(counter_seed("draw", self.seed, "image", still.name))
        weights = torch.randn(1, size, generator=generator) * self.method.weight_std
        images = still.load(self.teacher.preprocess)[None].float() / 255
        course = self.method.fit_locations(images, shown, weights, max(self.indices))
        return target, course.predictions, kept


def dense_layers(
    method: Any, teacher: NetworkLayers, layer: int, updates: Sequence[int], seed: int
) -> DenseLayers:
    """Return a student of one layer of a teacher.

    Args:
        method: A method with `fit_locations`, as APM has it.
        teacher: All layers of the teacher.
        layer: Number of the layer; negative ones count from the last.
        updates: After which the student is read.
        seed: Of the draws and of the locations that are held out.

    Raises:
        BadInputError: If the method fits no locations, or the layer is not among the teacher's.
    """
    name = type(method).__name__.lower()
    if not hasattr(method, "fit_locations"):
        raise BadInputError(f"targets of locations need a method that fits them, such as apm, got {name}")
    number = teacher.indices[layer] if -len(teacher.indices) <= layer < 0 else layer
    if number not in teacher.indices:
        last = teacher.indices[-1]
        raise BadInputError(f"{teacher.model!r} has layers {teacher.indices[0]} to {last}, got {layer}")
    place = teacher.indices.index(number)
    one = replace(teacher, parts=teacher.parts[place : place + 1], indices=(number,))
    return DenseLayers(
        f"{name} of {teacher.model}, layer {number}", method, one, tuple(sorted(set(updates))), seed
    )


def dense_sentence(rows: Sequence[DenseRow]) -> str:
    """Return what a student of locations came to, averaged over images, in one line."""
    last = [row for row in rows if row.updates == max(one.updates for one in rows)]

    def shown(value: Callable[[DenseRow], float]) -> str:
        interval: Interval = mean_of([value(row) for row in last])
        return f"{interval.value:.2f}"

    return (
        f"{last[0].model}: after {last[0].updates} updates cosine {shown(lambda row: row.fitted)} at fitted locations "
        f"and {shown(lambda row: row.held_out)} at held-out ones (mean of the fitted targets: "
        f"{shown(lambda row: row.mean_fitted)})"
    )
