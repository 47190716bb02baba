# SPDX-License-Identifier: Apache-2.0
"""The locations of fitted students: their features, their share of the attention, and colours."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from tta_bench.optim import adam, adam_init, gradient

from ._dims import Student, Tensors
from ._ends import Attention
from ._fast import Fast


@dataclass(frozen=True)
class Colours:
    """Settings for fitting the head that gives each location a colour.

    Attributes:
        updates: Adam's updates; 0 gives the colours of an untrained head.
        lr: Its learning rate.
        width: Width of its two hidden layers.
        weight_std: Standard deviation of its first weights.
    """

    updates: int = 200
    lr: float = 3e-3
    width: int = 256
    weight_std: float = 0.05


class Islands(NamedTuple):
    """Features, attention and colours at the locations of N students.

    Attributes:
        features: (N, D, H, W), one feature per location, before pooling and without the code that pooling adds.
        share: (N, M, H, W), how the heads of the pooling weigh the locations; sums to 1 over them.
        colours: (N, 3, H, W), reconstructed from the location's feature and input, of the scale of [0, 1] but not
            clipped to it; None where they were not asked for.
    """

    features: Tensor
    share: Tensor
    colours: Tensor | None


def islands(
    student: Student,
    weights: Tensor,
    patches: Tensor | None,
    images: Tensor,
    generator: torch.Generator,
    colours: Colours | None,
) -> Islands:
    """Return what the locations of fitted students hold.

    Args:
        student: Their sizes.
        weights: (N, P).
        patches: (N, patches, pixels) of their images, or None.
        images: (N, 3, H', W') in [0, 1].
        generator: Draws the weights of the head for colours.
        colours: How that head is fitted, or None for no colours.

    Source: the colour head of arXiv:2410.20535, which sees a location's feature beside its input.
    Differs: the published test-time loss gives it no gradient, so that it stays noise; here it is fitted afterwards
    to the image's own colours, which leaves the student as it is.
    """
    nowhere, nothing = torch.empty_like(weights), weights.new_zeros(len(weights), student.feature)
    engine = Fast(student, weights, nowhere, patches, target=nothing)
    with torch.no_grad():
        engine.forward()
        named = engine.named
        features = torch.baddbmm(named["project.bias"][..., None], named["project.weight"], engine.h[2])
        pool = engine.pool
        places = features.shape[2]
        even = features.new_full((len(features), 1, places), 1 / places)
        share = pool.share if isinstance(pool, Attention) else even
    found = None
    if colours is not None:
        inputs = _inputs(student, features, engine.first.column)
        wanted = F.interpolate(images, size=student.grid, mode="bilinear", antialias=True)
        found = _fit_colours(inputs, wanted.flatten(2), generator, colours)
    grid = student.grid
    return Islands(
        torch.unflatten(features, 2, grid),
        torch.unflatten(share, 2, grid),
        None if found is None else torch.unflatten(found, 2, grid),
    )


def _inputs(student: Student, features: Tensor, column: Tensor | None) -> Tensor:
    """Return feature, column of the image and code of every location, (N, D + column + code, L)."""
    count, _, places = features.shape
    code = student.table(student.dims.code, features).expand(count, -1, -1)
    parts = [features, code] if column is None else [features, column[..., None].expand(-1, -1, places), code]
    return torch.cat(parts, dim=1)


def _fit_colours(inputs: Tensor, wanted: Tensor, generator: torch.Generator, how: Colours) -> Tensor:
    """Return the colours (N, 3, L) of heads fitted to wanted ones."""
    widths = (inputs.shape[1], how.width, how.width, 3)
    params: Tensors = {}
    for index, (into, out) in enumerate(pairwise(widths)):
        drawn = torch.randn(len(inputs), out, into, generator=generator, device=generator.device)
        params[f"weight{index}"] = drawn.to(inputs) * how.weight_std
        params[f"bias{index}"] = inputs.new_zeros(len(inputs), out, 1)

    def loss(named: Tensors) -> tuple[Tensor, None]:
        return (_colours(named, inputs) - wanted).square().mean((1, 2)).sum(), None

    state = adam_init(params)
    for _ in range(how.updates):
        grads, _, _ = gradient(loss, params)
        params, state = adam(params, grads, state, lr=how.lr)
    return _colours(params, inputs)


def _colours(named: Tensors, inputs: Tensor) -> Tensor:
    h = torch.baddbmm(named["bias0"], named["weight0"], inputs).relu()
    h = torch.baddbmm(named["bias1"], named["weight1"], h).relu()
    return torch.baddbmm(named["bias2"], named["weight2"], h)
