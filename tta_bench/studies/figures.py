# SPDX-License-Identifier: Apache-2.0
"""APM's other pictures: the loss of a fit, a path between two images, and the error against the teacher's map."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from tta_bench.errors import BadInputError
from tta_bench.method import Inputs
from tta_bench.models.loading import load_model
from tta_bench.models.source import SourceModel
from tta_bench.spec import counter_seed
from tta_bench.spec.whole import whole
from tta_bench.studies.apm import Plan, method_of
from tta_bench.studies.islands.dense import dense_layers
from tta_bench.studies.islands.study import still_of
from tta_bench.studies.islands.subjects import CLASSES, Still, network_layers

PATH_STEPS = 21
"""Points on the path between two images, both ends included."""


class Figures(NamedTuple):
    """The data behind the figures of one image.

    Attributes:
        losses: (U + 1,) of the fit.
        path: (P, 2) share of the second image, and cosine of the student's output with the first image's target;
            None without a second image.
        error: (H, W) one less the cosine of the student's locations with the teacher's last map.
    """

    losses: np.ndarray
    path: np.ndarray | None
    error: np.ndarray


def figures(plan: Plan, still: Still, second: Still | None) -> Figures:
    """Return what the figures of one image show, at the plan's last number of updates and first rate.

    The path fits a student to the first image and then shows it mixtures of both, pixel by pixel: how far its output
    moves says how much of the image it uses.
    """
    method = replace(method_of(plan), lr=plan.lrs[0])
    model = plan.model or type(method).card.model
    source = load_model(model, CLASSES, class_indices=(0, 1), pretrained=plan.pretrained, seed=plan.seed)
    x = _input(source, still)
    with torch.no_grad():
        target = source.encode(x)
    generator = torch.Generator().manual_seed(counter_seed("draw", plan.seed, "image", still.name))
    weights = method.draw(source, 1, generator)
    course = method.fit(source, {}, Inputs(images=x, features=target, draws=weights), plan.updates[-1])
    path = (
        None if second is None else _path(method, source, course.weights, x, _input(source, second), target)
    )
    return Figures(course.losses[:, 0].double().numpy(), path, _error(plan, method, model, still))


def _path(
    method: Any, source: SourceModel, weights: Tensor, x: Tensor, other: Tensor, target: Tensor
) -> np.ndarray:
    rows = []
    for share in np.linspace(0.0, 1.0, PATH_STEPS):
        y = method.respond(source, weights, (1 - share) * x + share * other)
        rows.append((float(share), float(F.cosine_similarity(y, target)[0])))
    return np.array(rows)


def _error(plan: Plan, method: Any, model: str, still: Still) -> np.ndarray:
    teacher = network_layers(model, pretrained=plan.pretrained, seed=plan.seed)
    student = dense_layers(method, teacher, -1, (plan.updates[-1],), plan.seed)
    return student.error_map(still)


def _input(source: SourceModel, still: Still) -> Tensor:
    return still.load(source.preprocess)[None].to(source.dtype) / 255


def draw_figures(plan: Plan, image: Path, second: Path | None, folder: Path) -> list[Path]:
    """Draw the figures of one image file as an SVG, and return what was written.

    Raises:
        BadInputError: If an image cannot be read, or matplotlib is not installed.
    """
    try:
        from matplotlib import rc_context
        from matplotlib.backends.backend_svg import FigureCanvasSVG
        from matplotlib.figure import Figure
    except ImportError as error:
        raise BadInputError(
            "figures need matplotlib; install it with pip install 'tta-bench[plots]'"
        ) from error
    result = figures(plan, still_of(image), None if second is None else still_of(second))
    figure = Figure(figsize=(4 * (2 + (second is not None)), 3.6), layout="constrained")
    FigureCanvasSVG(figure)
    axes = figure.subplots(1, 2 + (second is not None))
    axes[0].plot(result.losses)
    axes[0].set(title="loss of the fit", xlabel="updates", yscale="log")
    shown = axes[1].imshow(result.error, vmin=0.0, cmap="magma")
    axes[1].set(title="1 - cosine with the teacher's last map", xticks=[], yticks=[])
    figure.colorbar(shown, ax=axes[1])
    if result.path is not None:
        axes[2].plot(result.path[:, 0], result.path[:, 1])
        axes[2].set(
            title="output on the way to a second image", xlabel="share of the second image", ylabel="cosine"
        )
    path = folder / "figures.svg"
    with rc_context({"svg.fonttype": "none", "svg.hashsalt": "figures"}), whole(path) as part:
        figure.savefig(part, format="svg", metadata={"Date": None})
    return [path]
