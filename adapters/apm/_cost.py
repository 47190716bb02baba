# SPDX-License-Identifier: Apache-2.0
"""The cost of a student's passes by formula: multiply-adds of products alone, and Adam's traffic through memory."""

from __future__ import annotations

from typing import NamedTuple

from ._dims import Student

ADAM_PASSES = 7
"""Times that Adam moves a weight's worth of memory: it reads four numbers and writes three."""


class Passes(NamedTuple):
    """Multiply-adds of one forward and one backward pass of one student."""

    forward: int
    backward: int


def passes_by_formula(engine: str, student: Student, *, image: bool) -> Passes | None:
    """Return what an engine's passes cost; None for the active one, which leaves out what is zero."""
    known = {"reference": reference_passes, "fast": fast_passes}.get(engine)
    return known(student, image=image) if known else None


def reference_passes(student: Student, *, image: bool) -> Passes:
    """Return the cost of the reference: every location by itself, every gradient of a product a product."""
    (first, second, third), d = student.dims.widths, student.feature
    places = student.grid[0] * student.grid[1]
    inputs = student.column + student.dims.code
    layers = places * (first * inputs + second * first + third * second + d * third)
    patches = student.column * 3 * student.dims.patch**2 if image else 0
    pool = 2 * d * d + 2 * places * d * d + 2 * places * d if student.pooling == "attention" else 0
    # Without an image nothing below the first layer wants a gradient.
    unwanted = 0 if image else places * first * inputs
    return Passes(layers + patches + pool, 2 * (layers + pool) + patches - unwanted)


def fast_passes(student: Student, *, image: bool) -> Passes:
    """Return the cost of the fast engine: separable first layer, collapsed attention, low-rank top gradient."""
    first, second, third = student.dims.widths
    rows, columns = student.grid
    places, half = rows * columns, student.dims.code // 2
    ends = first * half * (rows + columns)
    if image:
        ends += student.column * 3 * student.dims.patch**2 + first * student.column
    middle = places * (second * first + third * second)
    pool, below = _pool_passes(student)
    return Passes(ends + middle + pool, ends + 2 * middle + below)


def _pool_passes(student: Student) -> Passes:
    """Return the cost of the pooling, backward with that of spelling out the gradient of the third layer."""
    d, heads, third = student.feature, student.heads, student.dims.widths[2]
    places = student.grid[0] * student.grid[1]
    if student.pooling == "mean":
        return Passes(d * third, d * third + third * places)
    code = heads * d * sum(student.grid)  # two halves of the code, each along one axis, there and back
    shared = 2 * heads * (third * places + third * d) + code
    return Passes(shared + 4 * d * d, shared + 4 * d * d + 2 * heads * third * (places + d))


def adam_bytes(student: Student, itemsize: int) -> int:
    """Return the bytes that one update moves."""
    return ADAM_PASSES * student.size * itemsize
