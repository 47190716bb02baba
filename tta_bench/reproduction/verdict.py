# SPDX-License-Identifier: Apache-2.0
"""Compare a recomputed sample with the committed one: equal, equal but for near-ties, or different and why."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple

from tta_bench.reproduction.sample import Cell, Sample

NEAR = 5e-3
"""Largest margin of a near-tie, in probability, on both machines. Float32 rounding moves a probability by about 1e-6 in
one forward pass; steps of adaptation, and corruptions that differ by 1 in 255 in single pixels, multiply that."""
EQUAL, NEARLY, DIFFERENT = "equal", "near-ties", "different"


class Mismatch(NamedTuple):
    """One image whose prediction differs.

    Attributes:
        cell: Name of the cell.
        image: Place in the stream.
        committed: Class index in the sample.
        recomputed: Class index here.
        margin: The larger of the two margins.
    """

    cell: str
    image: int
    committed: int
    recomputed: int
    margin: float

    @property
    def near(self) -> bool:
        """Whether rounding alone may decide this image."""
        return self.margin <= NEAR


class Verdict(NamedTuple):
    """The agreement of a recomputed sample.

    Attributes:
        images: Predictions compared.
        mismatches: Those that differ.
        inputs: What differs in the inputs of cells and may not: weights, images, order, pixels that nothing corrupts.
        machine: What differs and may: processor, versions, and a few values of corrupted pixels.
    """

    images: int
    mismatches: tuple[Mismatch, ...]
    inputs: tuple[str, ...]
    machine: tuple[str, ...]

    @property
    def label(self) -> Literal["equal", "near-ties", "different"]:
        """``equal``, ``near-ties`` where all mismatches are such, or ``different``."""
        if self.inputs or not all(one.near for one in self.mismatches):
            return "different"
        return "near-ties" if self.mismatches else "equal"

    def sentences(self) -> list[str]:
        """Return the verdict in words."""
        count = len(self.mismatches)
        if self.label == EQUAL:
            return [f"equal: all {self.images} predictions are those of the committed sample"]
        if self.label == NEARLY:
            return [
                f"equal but for {count} near-tie{'s' if count > 1 else ''} in {self.images} predictions",
                *map(_told, self.mismatches),
            ]
        far = [one for one in self.mismatches if not one.near]
        return [
            f"different: {count} of {self.images} predictions differ, {len(far)} of them by more than rounding "
            "explains",
            *(f"the inputs differ: {text}" for text in self.inputs),
            *(f"what may explain it: {text}" for text in self.machine),
            *map(_told, [*far, *(one for one in self.mismatches if one.near)][:10]),
        ]


def compare(sample: Sample, cells: Sequence[Cell], made_on: Mapping[str, str]) -> Verdict:
    """Return how far recomputed cells agree with those of a sample.

    Args:
        sample: The committed one.
        cells: The recomputed ones.
        made_on: Processor, instruction set and versions here.
    """
    here = {cell.name: cell for cell in cells}
    mismatches: list[Mismatch] = []
    inputs: list[str] = []
    moved: list[str] = []
    for cell in sample.cells:
        own = here.get(cell.name)
        if own is None or len(own.predictions) != len(cell.predictions):
            inputs.append(f"{cell.name} has {len(own.predictions) if own else 'no'} images here")
            continue
        inputs += [
            f"the {fact} of {cell.name}"
            for fact in ("weights", "images", "order")
            if getattr(own, fact) != getattr(cell, fact)
        ]
        if own.pixels != cell.pixels:
            (moved if cell.corrupted else inputs).append(f"pixels of {cell.shift} differ in bits")
        mismatches += _mismatches(cell, own)
    names = sorted(sample.made_on.keys() | made_on.keys())
    machine = [
        f"{name} {sample.made_on.get(name, 'none')} there, {made_on.get(name, 'none')} here"
        for name in names
        if sample.made_on.get(name) != made_on.get(name)
    ]
    count = sum(len(cell.predictions) for cell in sample.cells)
    return Verdict(
        count, tuple(mismatches), tuple(dict.fromkeys(inputs)), tuple(dict.fromkeys([*machine, *moved]))
    )


def _mismatches(cell: Cell, own: Cell) -> list[Mismatch]:
    pairs = zip(cell.predictions, own.predictions, cell.margins, own.margins, strict=True)
    return [
        Mismatch(cell.name, index, there, here, max(margins))
        for index, (there, here, *margins) in enumerate(pairs)
        if there != here
    ]


def _told(one: Mismatch) -> str:
    return (
        f"  {one.cell}, image {one.image}: class {one.committed} there, {one.recomputed} here, "
        f"margin {one.margin:.1g}"
    )
