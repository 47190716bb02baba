# SPDX-License-Identifier: Apache-2.0
"""Adam joined with the product that gives a gradient, for the weights of the two inner layers.

They are half of a student's weights. Their gradient is made a few rows at a time in a buffer that stays in the
cache, and used there at once; it never goes through memory, and no room for all of it is needed.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import NamedTuple

from torch import Tensor

from ._adam import Adam, Moments, Parts, step
from ._dims import Student

INNER = ("fc2.weight", "fc3.weight")
TILE = 1 << 21
"""Numbers of a buffer: 8 MiB in float32."""


class Tile(NamedTuple):
    """Rows of a layer's weights: where their gradient is made, (N, rows, inputs), and what Adam moves."""

    rows: slice
    grad: Tensor
    parts: Parts


class Tiles:
    """Adam's steps on the inner weights, in place.

    Args:
        student: The sizes.
        adam: The settings.
        weights: (N, P).
        moments: Their moments (N, P).
        numbers: Size of the buffer; a tile has one row of every student at least.
    """

    def __init__(
        self, student: Student, adam: Adam, weights: Tensor, moments: Moments, numbers: int = TILE
    ) -> None:
        self.adam, self.done = adam, moments.done
        named = {name: weights for name, weights in student.unpack(weights).items() if name in INNER}
        first, second = student.unpack(moments.first), student.unpack(moments.second)
        row = max(len(w) * w.shape[2] for w in named.values())
        buffer = weights.new_empty(min(max(numbers, row), max(w.numel() for w in named.values())))
        self._tiles = {
            name: [
                Tile(
                    rows,
                    grad,
                    Parts.of(w[:, rows], grad, first[name][:, rows], second[name][:, rows], self.done),
                )
                for rows, grad in _tiles(w, buffer)
            ]
            for name, w in named.items()
        }

    def __call__(self, name: str, product: Callable[[slice, Tensor], object]) -> None:
        """Take one step on the weights of a layer.

        Args:
            name: Of the weights.
            product: Writes the gradient of some rows (N, rows, inputs).
        """
        for tile in self._tiles[name]:
            product(tile.rows, tile.grad)
            step(self.adam, tile.parts, self.done)


def _tiles(weights: Tensor, buffer: Tensor) -> Iterator[tuple[slice, Tensor]]:
    """Yield the rows of weights (N, rows, inputs) in tiles, each with its place in a buffer."""
    count, height, width = weights.shape
    tall = max(1, len(buffer) // (count * width))
    for start in range(0, height, tall):
        rows = slice(start, min(start + tall, height))
        shape = (count, rows.stop - start, width)
        yield rows, buffer[: math.prod(shape)].view(shape)


def runs(student: Student) -> Iterator[tuple[slice, slice]]:
    """Yield where the other weights lie: in a student's row of weights, and in a row without the inner ones."""
    start = stop = left_out = 0
    for name, shape in student.shapes.items():
        if name not in INNER:
            stop += math.prod(shape)
            continue
        yield slice(start, stop), slice(start - left_out, stop - left_out)
        left_out += math.prod(shape)
        start = stop = stop + math.prod(shape)
    yield slice(start, stop), slice(start - left_out, stop - left_out)
