# SPDX-License-Identifier: Apache-2.0
"""Agreement among the locations of a feature map: adjacent cosines, islands, and the level expected by chance.

All of it in float64, for one map (H, W, D) at a time.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]

SHUFFLES = 8
"""Shuffles behind the chance figures of islands."""


class Islands(NamedTuple):
    """Connected regions of agreeing locations.

    Attributes:
        number: How many there are; a location that agrees with no neighbour is one of its own.
        mean_size: Locations in one, on average.
    """

    number: float
    mean_size: float


class Agreement(NamedTuple):
    """Agreement within one map.

    Attributes:
        agreement: Mean cosine of features at adjacent locations.
        chance: The same, expected over all shuffles of the locations: the mean cosine of two different locations.
        islands: Islands at the threshold.
        chance_islands: The same, averaged over shuffles of the locations.
        dimension: Effective dimension of the features.
    """

    agreement: float
    chance: float
    islands: Islands
    chance_islands: Islands
    dimension: float

    @property
    def size_over_chance(self) -> float:
        """Mean size of an island as a multiple of chance."""
        return self.islands.mean_size / self.chance_islands.mean_size


def agree(
    field: Floats, threshold: float, generator: np.random.Generator, shuffles: int = SHUFFLES
) -> Agreement:
    """Return agreement, islands and dimension of one map (H, W, D), with their chance figures.

    Args:
        field: Features of at least two locations.
        threshold: Cosine from which two adjacent locations agree.
        generator: Shuffles the locations.
        shuffles: How often.
    """
    unit = unit_rows(field)
    flat, shape = unit.reshape(-1, unit.shape[-1]), unit.shape
    shuffled = [
        islands(flat[generator.permutation(len(flat))].reshape(shape), threshold)[0] for _ in range(shuffles)
    ]
    return Agreement(
        agreement(unit),
        chance(unit),
        islands(unit, threshold)[0],
        Islands(*(float(np.mean(column)) for column in zip(*shuffled, strict=True))),
        effective_dimension(field),
    )


def unit_rows(field: Floats) -> Floats:
    """Return features (..., D) scaled to length 1, in float64; zero stays zero."""
    values = np.asarray(field, dtype=np.float64)
    length = np.linalg.norm(values, axis=-1, keepdims=True)
    return values / np.where(length == 0, 1.0, length)


def agreement(unit: Floats) -> float:
    """Return the mean cosine of unit features (H, W, D) at adjacent locations."""
    return float(np.concatenate(adjacent_cosines(unit), axis=None).mean())


def adjacent_cosines(unit: Floats) -> tuple[Floats, Floats]:
    """Return the cosines with the neighbour to the right (H, W - 1) and below (H - 1, W)."""
    return (unit[:, :-1] * unit[:, 1:]).sum(-1), (unit[:-1] * unit[1:]).sum(-1)


def chance(unit: Floats) -> float:
    """Return the mean cosine of two different locations: what `agreement` gives on average after a shuffle."""
    flat = unit.reshape(-1, unit.shape[-1])
    count = len(flat)
    total = flat.sum(0)
    return float((total @ total - (flat * flat).sum()) / (count * (count - 1)))


def islands(unit: Floats, threshold: float) -> tuple[Islands, Integers]:
    """Return the islands of unit features (H, W, D), and the number of each location's island (H, W).

    Two adjacent locations agree where their cosine reaches the threshold; islands are the connected components of
    the graph of agreeing neighbours.
    """
    height, width = unit.shape[:2]
    place = np.arange(height * width).reshape(height, width)
    right, below = (cosine >= threshold for cosine in adjacent_cosines(unit))
    first = np.concatenate([place[:, :-1][right], place[:-1][below]])
    second = np.concatenate([place[:, 1:][right], place[1:][below]])
    edges = coo_matrix((np.ones(len(first)), (first, second)), shape=(place.size, place.size))
    count, numbers = connected_components(edges, directed=False)
    return Islands(float(count), place.size / count), numbers.reshape(height, width).astype(np.int64)


def effective_dimension(field: Floats) -> float:
    """Return the participation ratio of the features' covariance over locations, from 1 to D; 0 for a constant map.

    ``(sum of eigenvalues) ** 2 / sum of squared eigenvalues``: D where variance is spread evenly over D directions.
    """
    flat = np.asarray(field, dtype=np.float64).reshape(-1, field.shape[-1])
    centred = flat - flat.mean(0)
    # the smaller of the two Gram matrices has the same eigenvalues
    gram = centred @ centred.T if len(flat) < flat.shape[1] else centred.T @ centred
    total = float(np.trace(gram))
    return total**2 / float((gram * gram).sum()) if total > 0 else 0.0
