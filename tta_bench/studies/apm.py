# SPDX-License-Identifier: Apache-2.0
"""Study a method that fits a student to its teacher over updates, learning rate and size of the student.

Each image starts from the weights that a run with the same seed gives it, so a point of a curve is what
``tta-bench run`` would predict with these hyper-parameters.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from tta_bench.data.dataset import Dataset, OpenRequest, Shift, find_dataset
from tta_bench.data.images.checked import open_checked
from tta_bench.data.stream import choose
from tta_bench.errors import BadInputError
from tta_bench.hyperparameters import create_method, method_class
from tta_bench.method import Inputs
from tta_bench.metrics.accuracy import Interval, accuracy, difference, mean_over_shifts
from tta_bench.models.loading import load_model
from tta_bench.models.source import SourceModel
from tta_bench.spec import counter_seed

NEEDED = ("fit", "respond", "student")


@dataclass(frozen=True)
class Plan:
    """The settings of a study.

    Attributes:
        method: Name of a method with `fit`, `respond` and `student`, as APM has them.
        datasets: Names as on the command line of a run.
        images: First so many of every shift.
        updates: Numbers of updates at which the student is looked at, ascending.
        lrs: Learning rates, each at all numbers of updates.
        widths: Factors of the widths of the student's layers.
        width_updates: Numbers of updates at which other widths are looked at.
        values: Further hyper-parameters.
        seed: Of the draws.
        pretrained: False for random source models.
        model: Source model; empty for the method's default one.
    """

    method: str = "apm"
    datasets: tuple[str, ...] = (
        "pocket", "pocket-v2", "pocket-hard", "pocket-sketch", "pocket-rendition",
        "pocket-c:gaussian_noise", "pocket-c:fog", "pocket-c:pixelate",
    )  # fmt: skip
    images: int = 100
    updates: tuple[int, ...] = (0, 1, 2, 4, 7, 12, 19, 35, 60, 100, 200)
    lrs: tuple[float, ...] = (1e-4, 3e-4, 1e-3, 3e-3)
    widths: tuple[float, ...] = (0.25, 0.5, 2.0)
    width_updates: tuple[int, ...] = (0, 1, 2, 4, 7, 12, 19, 35, 60)
    values: tuple[tuple[str, Any], ...] = ()
    seed: int = 0
    pretrained: bool = True
    model: str = ""

    def __post_init__(self) -> None:
        """Refuse learning rates and widths that no fit could have."""
        for name, values in (("lr", self.lrs), ("width", self.widths)):
            for value in values:
                if not 0 < value < math.inf:
                    raise BadInputError(f"{name} must be a number above 0, got {value}", options=(name,))
        for update in (*self.updates, *self.width_updates):
            if update < 0:
                raise BadInputError(f"updates must be 0 or more, got {update}", options=("updates",))


class Point(NamedTuple):
    """One number of updates under one setting, over all images; intervals are 95%.

    Attributes:
        lr: Learning rate.
        weights: Of one student.
        updates: Before the prediction is read.
        images: How many images, all shifts together.
        accuracy: Of the student.
        teacher: Accuracy of the teacher on the same images.
        gain: Student's accuracy less teacher's.
        agreement: Share of images on which both predict the same class.
        loss: The student's.
        own: Cosine of the student's output on its own image with the target.
        other: Cosine of its output on another image with the same target.
    """

    lr: float
    weights: int
    updates: int
    images: int
    accuracy: Interval
    teacher: Interval
    gain: Interval
    agreement: Interval
    loss: Interval
    own: Interval
    other: Interval


class ShiftImages(NamedTuple):
    """Images of one shift: inputs of the source model, their features, labels and ids."""

    x: Tensor
    features: Tensor
    labels: Tensor
    ids: list[str]


def study(plan: Plan, advanced: Callable[[str], None] = lambda text: None) -> list[Point]:
    """Return the points of all curves.

    Args:
        plan: What is studied.
        advanced: Called after every setting.

    Raises:
        BadInputError: If the method fits no student.
    """
    base = method_of(plan)
    source, shifts = load_images(plan)
    found: list[Point] = []
    for method, updates in _settings(plan, base, source):
        found += curve_of(method, source, shifts, updates, plan.seed)
        advanced(f"lr {method.lr:g}, {method.student(source).size:,} weights")
    return found


def method_of(plan: Plan) -> Any:
    """Return the method that is studied.

    Raises:
        BadInputError: If it fits no student, or stops before the last update.
    """
    cls = method_class(plan.method)
    missing = [name for name in NEEDED if not hasattr(cls, name)]
    if missing:
        raise BadInputError(
            f"a study needs a method that fits a student, such as apm; {plan.method} has no {', '.join(missing)}"
        )
    if dict(plan.values).get("stop_loss"):
        raise BadInputError("a study looks at every number of updates; leave stop_loss out")
    return create_method(plan.method, dict(plan.values))


def _settings(plan: Plan, base: Any, source: SourceModel) -> Iterator[tuple[Any, tuple[int, ...]]]:
    """Yield the methods with their numbers of updates: each learning rate, then each width."""
    for lr in plan.lrs:
        yield replace(base, lr=lr), plan.updates
    dims = base.student(source).dims
    for factor in plan.widths:
        widths = tuple(max(1, round(width * factor)) for width in dims.widths)
        yield replace(base, dims=dims._replace(widths=widths)), plan.width_updates


def load_images(plan: Plan) -> tuple[SourceModel, list[ShiftImages]]:
    """Return the source model and the images of every shift.

    Raises:
        BadInputError: If there is no dataset, or the datasets differ in their classes.
    """
    model = plan.model or method_class(plan.method).card.model
    source: SourceModel | None = None
    shifts = []
    for token in plan.datasets:
        dataset, corruptions, severities = find_dataset(token)
        if source is None:
            source = load_model(
                model, dataset.class_names, class_indices=dataset.class_indices,
                templates=dataset.templates, pretrained=plan.pretrained, seed=plan.seed,
            )  # fmt: skip
        if dataset.class_names != source.class_names:
            raise BadInputError(
                f"the datasets of a study must share their classes; {token} has others than {plan.datasets[0]}"
            )
        for shift in dataset.shifts(corruptions, severities or (5,)):
            shifts.append(_open(dataset, shift, source, plan))
    if source is None:
        raise BadInputError("a study needs at least one dataset, got none; name one")
    return source, shifts


def _open(dataset: Dataset, shift: Shift, source: SourceModel, plan: Plan) -> ShiftImages:
    images = open_checked(dataset, OpenRequest(shift))
    positions = choose(images, f"first-{plan.images}", plan.seed)
    x = images.load([int(position) for position in positions], source.preprocess)
    x = x.to(source.dtype) / 255
    with torch.no_grad():
        features = source.encode(x)
    labels = torch.as_tensor(np.asarray(images.labels)[positions])
    return ShiftImages(x, features, labels, [images.ids[position] for position in positions])


def curve_of(
    method: Any, source: SourceModel, shifts: Sequence[ShiftImages], updates: Sequence[int], seed: int
) -> list[Point]:
    """Return the points of one setting."""
    each = [_fit(method, source, images, updates, seed) for images in shifts]
    shift = np.concatenate([np.full(len(images.ids), i) for i, images in enumerate(shifts)])
    _, image = np.unique(np.concatenate([images.ids for images in shifts]), return_inverse=True)
    size, points = method.student(source).size, []
    for k, update in enumerate(updates):
        columns = {name: np.concatenate([rows[k][name] for rows in each]) for name in each[0][k]}
        right, teacher = columns.pop("correct"), columns.pop("teacher")
        agreement = accuracy(columns.pop("agreement"), shift, image)
        means = {name: mean_over_shifts(values, shift, image) for name, values in columns.items()}
        points.append(
            Point(
                method.lr, size, update, len(right), accuracy(right, shift, image),
                accuracy(teacher, shift, image), difference(right, teacher, shift, image), agreement, **means,
            )
        )  # fmt: skip
    return points


def _fit(
    method: Any, source: SourceModel, images: ShiftImages, updates: Sequence[int], seed: int
) -> list[dict[str, Any]]:
    """Return, by number of updates, one row of figures per image; a fit continues from one number to the next."""
    generator = torch.Generator()
    drawn = [
        method.draw(source, 1, generator.manual_seed(counter_seed("draw", seed, "image", name)))
        for name in images.ids
    ]
    weights, moments, done = torch.cat(drawn), None, 0
    other = images.x.roll(1, 0)
    rows = []
    for update in updates:
        inputs = Inputs(images=images.x, features=images.features, draws=weights)
        course = method.fit(source, {}, inputs, update - done, start=moments)
        weights, moments, done = course.weights, course.moments, update
        rows.append(_row(source, images, course, method.respond(source, weights, other)))
    return rows


def _row(source: SourceModel, images: ShiftImages, course: Any, elsewhere: Tensor) -> dict[str, Any]:
    """Return the figures of one number of updates, one per image."""
    y, target = course.predictions[-1], images.features
    predicted, teacher = (source.head(each).argmax(1) for each in (y, target))
    return {
        "correct": (predicted == images.labels).numpy(),
        "teacher": (teacher == images.labels).numpy(),
        "agreement": (predicted == teacher).double().numpy(),
        "loss": course.losses[-1].double().numpy(),
        "own": F.cosine_similarity(y, target).double().numpy(),
        "other": F.cosine_similarity(elsewhere, target).double().numpy(),
    }
