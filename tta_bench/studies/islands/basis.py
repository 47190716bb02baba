# SPDX-License-Identifier: Apache-2.0
"""Colours of a feature map: three components by PCA or t-SNE, and one range of values for RGB."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from tta_bench.errors import BadInputError
from tta_bench.metrics.islands import unit_rows

Floats = NDArray[np.float64]
Bytes = NDArray[np.uint8]

COLOURS = 3
LEAST_LOCATIONS = 4


@dataclass
class Moments:
    """Running first and second moments of unit features of one width.

    Attributes:
        count: Features so far.
        total: Their sum (D,).
        products: Sum of their outer products (D, D).
    """

    count: int = 0
    total: Floats = field(default_factory=lambda: np.zeros(0))
    products: Floats = field(default_factory=lambda: np.zeros((0, 0)))

    def add(self, unit: Floats) -> None:
        """Take the unit features of a map (H, W, D) in."""
        flat = unit.reshape(-1, unit.shape[-1])
        if not self.count:
            self.total, self.products = np.zeros(flat.shape[1]), np.zeros((flat.shape[1], flat.shape[1]))
        self.count += len(flat)
        self.total += flat.sum(0)
        self.products += flat.T @ flat

    def basis(self) -> Basis:
        """Return the mean and the three directions of largest variance."""
        mean = self.total / self.count
        values, vectors = np.linalg.eigh(self.products / self.count - np.outer(mean, mean))
        directions = vectors[:, np.argsort(values)[::-1][:COLOURS]]
        largest = np.abs(directions).argmax(0)
        signs = np.sign(directions[largest, np.arange(directions.shape[1])])
        missing = COLOURS - directions.shape[1]
        return Basis(
            mean, np.pad(directions * np.where(signs == 0, 1, signs), ((0, 0), (0, max(0, missing))))
        )


@dataclass(frozen=True)
class Basis:
    """A centre (D,) and three orthonormal directions (D, 3); the largest entry of each is positive."""

    mean: Floats
    directions: Floats

    def project(self, unit: Floats) -> Floats:
        """Return the three components (H, W, 3) of unit features (H, W, D)."""
        return np.asarray((unit - self.mean) @ self.directions)


def own_basis(unit: Floats) -> Basis:
    """Return the basis of one map's own unit features (H, W, D)."""
    moments = Moments()
    moments.add(unit)
    return moments.basis()


def tsne(features: Floats, *, perplexity: float, seed: int) -> Floats:
    """Return three-dimensional t-SNE coordinates (H, W, 3) of features (H, W, D), from a random start.

    Raises:
        BadInputError: If scikit-learn is missing, or there are too few locations for the perplexity.
    """
    height, width = features.shape[:2]
    if height * width < LEAST_LOCATIONS or not 0 < perplexity < height * width:
        raise BadInputError(
            f"t-SNE needs {LEAST_LOCATIONS} locations or more and a perplexity above 0 and below their number, got "
            f"{height * width} locations and perplexity {perplexity:g}; use PCA for this layer"
        )
    try:
        from sklearn.manifold import TSNE
    except ImportError as error:
        raise BadInputError(
            "t-SNE needs scikit-learn; install it with pip install 'tta-bench[tsne]', or use PCA"
        ) from error
    made: Any = TSNE(
        n_components=COLOURS, init="random", learning_rate="auto", perplexity=perplexity, random_state=seed
    )
    flat = unit_rows(features).reshape(height * width, -1).astype(np.float32)
    return np.asarray(made.fit_transform(flat), dtype=np.float64).reshape(height, width, COLOURS)


Embedding = Literal["pca", "tsne"]


def to_rgb(components: Floats, low: float | None = None, high: float | None = None) -> Bytes:
    """Return colours (H, W, 3) of components by one minimum and one maximum for all three.

    Args:
        components: (H, W, 3).
        low: What becomes 0; None for the smallest component.
        high: What becomes 255; None for the largest.
    """
    least = components.min() if low is None else low
    most = components.max() if high is None else high
    scaled = (components - least) / (most - least) if most > least else np.zeros_like(components)
    # a small offset keeps values that lie on a rounding tie from hanging on the last bit of a sum
    return np.floor(scaled * 255 + 0.5 + 1e-9).clip(0, 255).astype(np.uint8)
