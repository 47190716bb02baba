# SPDX-License-Identifier: Apache-2.0
"""A whole study of islands: subjects and images in, rows, curves and pictures out."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from tta_bench.data.dataset import OpenRequest, find_dataset
from tta_bench.data.images.checked import open_checked
from tta_bench.data.images.files import Paths, UnreadableImageError, decode
from tta_bench.data.images.preprocess import Preprocess
from tta_bench.data.stream import choose
from tta_bench.errors import BadInputError
from tta_bench.hyperparameters import create_method
from tta_bench.spec.whole import whole
from tta_bench.studies.islands.dense import DenseLayers, DenseRow, dense_layers, dense_sentence
from tta_bench.studies.islands.files import plot_curves, write_rows
from tta_bench.studies.islands.measure import THRESHOLD, Curve, LayerRow, curves, measure, sentence
from tta_bench.studies.islands.pictures import (
    Look,
    layer_colours,
    save_gif,
    sheet,
    still_colours,
)
from tta_bench.studies.islands.subjects import (
    NetworkLayers,
    Still,
    StudentLayers,
    Subject,
    controls,
    network_layers,
    student_layers,
)

UPDATES = (0, 1, 2, 5, 10, 19)
PICTURES = 4
"""Images of a dataset that are drawn by default."""


@dataclass(frozen=True)
class IslandsPlan:
    """The plan of a study: models, images and measures.

    Attributes:
        images: Paths of image files.
        dataset: Name as on the command line of a run; empty for none. A corrupted one gives its first shift.
        limit: First so many images of the dataset.
        models: Names of the models.
        layers: Numbers of the layers; None for all, negative ones from the last.
        method: A method that fits a student with locations, e.g. apm; empty for none.
        updates: Numbers of updates after which the student is looked at.
        dense: Layer of each model that the locations of a student are fitted to; None for none.
        values: Hyper-parameters of the method.
        pretrained: False for random weights.
        with_controls: Whether random weights, white noise and shuffled patches stand beside each model.
        threshold: Cosine from which two adjacent locations agree.
        seed: Of shuffles, noise, random weights and draws.
        look: How features become colours.
        pictures: Images of the dataset that are drawn.
    """

    images: tuple[Path, ...] = ()
    dataset: str = ""
    limit: int = 20
    models: tuple[str, ...] = ("pocket-clip",)
    layers: tuple[int, ...] | None = None
    method: str = ""
    updates: tuple[int, ...] = UPDATES
    dense: int | None = None
    values: dict[str, Any] = field(default_factory=dict)
    pretrained: bool = True
    with_controls: bool = True
    threshold: float = THRESHOLD
    seed: int = 0
    look: Look = Look()
    pictures: int = PICTURES

    def __post_init__(self) -> None:
        """Refuse a plan without images or models."""
        if not self.images and not self.dataset:
            raise BadInputError("islands need images: name files or a dataset")
        if self.dense is not None and not self.method:
            raise BadInputError("targets of locations need a method that fits them; name one, e.g. apm")
        if not self.models:
            raise BadInputError("islands need a model, got none; name one, e.g. pocket-clip")


@dataclass(frozen=True)
class IslandsResult:
    """The results of a study of islands.

    Attributes:
        rows: One for each image, subject and layer.
        curves: One for each subject, over its layers.
        subjects: In the order of the curves.
        stills: The images that are drawn.
        look: How features become colours.
        dense: Cosines of students that were fitted location by location.
    """

    rows: tuple[LayerRow, ...]
    curves: tuple[Curve, ...]
    subjects: tuple[Subject, ...]
    stills: tuple[Still, ...]
    look: Look
    dense: tuple[DenseRow, ...] = ()

    def sentences(self) -> list[str]:
        """Return one line for each model and student."""
        found = [sentence(curve) for curve in self.curves if not curve.control]
        for model in dict.fromkeys(row.model for row in self.dense):
            found.append(dense_sentence([row for row in self.dense if row.model == model]))
        return found

    def save(self, folder: Path, *, plot: bool = True, gif: bool = True, each: bool = True) -> list[Path]:
        """Write CSV, curves, and for every drawn image and subject a sheet, a GIF and one PNG a layer.

        Args:
            folder: Made where it is missing.
            plot: Whether the curves are drawn.
            gif: Whether GIFs are made, of subjects with more than one layer.
            each: Whether every layer has a PNG of its own.

        Returns:
            The written files.
        """
        folder.mkdir(parents=True, exist_ok=True)
        written = [folder / "islands.csv"]
        write_rows(self.rows, written[0])
        if self.dense:
            written.append(folder / "locations.csv")
            write_rows(self.dense, written[-1])
        if plot:
            written.append(folder / "islands.svg")
            plot_curves(self.curves, written[-1])
        for still in self.stills:
            for subject in self.subjects:
                if not subject.control:
                    written += self._draw(folder, still, subject, gif=gif, each=each)
        return written

    def _draw(self, folder: Path, still: Still, subject: Subject, *, gif: bool, each: bool) -> list[Path]:
        colours = layer_colours(subject, still, self.look)
        tiles = [
            (f"{n}  {name}", one)
            for n, name, one in zip(subject.indices, subject.layers, colours, strict=True)
        ]
        stem = f"{_slug(Path(still.name).stem)}-{_slug(subject.model)}"
        first = (Path(still.name).name, still_colours(still))
        pages = [(folder / f"{stem}.png", sheet([first, *tiles, *_extra(subject, still)]))]
        if each:
            pages += [
                (folder / f"{stem}-layer{n:02d}.png", sheet([tile]))
                for n, tile in zip(subject.indices, tiles, strict=True)
            ]
        for path, page in pages:
            with whole(path) as part:
                page.save(part, format="PNG")
        written = [path for path, _ in pages]
        if gif and len(tiles) > 1:
            written.append(folder / f"{stem}.gif")
            save_gif(tiles, written[-1])
        return written


def _extra(subject: Subject, still: Still) -> list[tuple[str, Any]]:
    """Return the tiles that only a student has: the colours that its last locations reconstruct."""
    if not isinstance(subject, StudentLayers):
        return []
    found = subject.fitted(still, subject.indices[-1], colours=True)
    rgb = (found.colours[0].permute(1, 2, 0).clamp(0, 1) * 255).round().byte().numpy()
    return [("reconstructed colours", np.asarray(rgb))]


def study_islands(
    plan: IslandsPlan, advanced: Callable[[int, int], None] = lambda done, total: None
) -> IslandsResult:
    """Measure the islands of models, controls and students on images.

    Args:
        plan: What is looked at.
        advanced: Called with images done and images in all.

    Raises:
        BadInputError: For what the plan asks and cannot be had: an image, a layer, a method with a student.
        IncompatibleError: If a model has no layer with a grid of locations.
    """
    subjects = list(_subjects(plan))
    stills, drawn = _stills(plan)
    done = iter(range(1, len(stills) + 1))
    rows = measure(
        subjects,
        stills,
        threshold=plan.threshold,
        seed=plan.seed,
        advanced=lambda: advanced(next(done), len(stills)),
    )
    students = [subject for subject in subjects if isinstance(subject, DenseLayers)]
    dense = [row for student in students for still in stills for row in student.rows(still)]
    return IslandsResult(
        tuple(rows), tuple(curves(rows)), tuple(subjects), tuple(stills[:drawn]), plan.look, tuple(dense)
    )


def _subjects(plan: IslandsPlan) -> Iterator[Subject]:
    for model in plan.models:
        subject: NetworkLayers = network_layers(
            model, wanted=plan.layers, pretrained=plan.pretrained, seed=plan.seed
        )
        yield subject
        if plan.with_controls:
            yield from controls(subject, pretrained=plan.pretrained, seed=plan.seed)
        if plan.method:
            method = create_method(plan.method, plan.values)
            yield student_layers(method, model, plan.updates, pretrained=plan.pretrained, seed=plan.seed)
            if plan.dense is not None:
                whole = network_layers(model, pretrained=plan.pretrained, seed=plan.seed)
                yield dense_layers(method, whole, plan.dense, plan.updates, plan.seed)


def _stills(plan: IslandsPlan) -> tuple[list[Still], int]:
    """Return the images, and how many of the first are drawn."""
    stills = [still_of(path) for path in plan.images]
    drawn = len(stills)
    if plan.dataset:
        stills += _from_dataset(plan)
        drawn += min(plan.pictures, len(stills) - drawn)
    return stills, drawn


def still_of(path: Path) -> Still:
    """Return the image of a file.

    Raises:
        BadInputError: If it cannot be read.
    """

    def load(preprocess: Preprocess) -> Any:
        return preprocess(decode(Paths(path.parent, [path.name]), 0))

    if not path.is_file():
        raise BadInputError(
            f"expected an image file, got {str(path)!r}, which does not exist; check the path"
        )
    try:
        load(Preprocess((8, 8)))  # an image that cannot be read ends the study before it begins
    except UnreadableImageError as error:
        raise BadInputError(
            f"{error.where} cannot be decoded ({error.reason}); choose another image"
        ) from error
    return Still(str(path), load)


def _from_dataset(plan: IslandsPlan) -> list[Still]:
    dataset, corruptions, severities = find_dataset(plan.dataset)
    shift = dataset.shifts(corruptions, severities or (5,))[0]
    images = open_checked(dataset, OpenRequest(shift))
    positions = choose(images, f"first-{plan.limit}", plan.seed)

    def loader(position: int) -> Callable[[Preprocess], Any]:
        return lambda preprocess: images.load([position], preprocess)[0]

    return [Still(images.ids[position], loader(int(position))) for position in positions]


def _slug(text: str) -> str:
    return re.sub(r"[^A-Za-z0-9]+", "-", text).strip("-") or "image"
