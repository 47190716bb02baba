# SPDX-License-Identifier: Apache-2.0
"""Options for a user's own model: its outputs and the images it expects. No torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from tta_bench.errors import BadInputError

CHANNELS = 3
INTERPOLATIONS = ("bilinear", "bicubic", "nearest")


@dataclass(frozen=True)
class ModelOptions:
    """Overrides for the models of a run, in place of their libraries' settings.

    Attributes:
        num_classes: Outputs of a model whose weights are read from a file; None: as many as the file has.
        class_names: Names of the model's outputs in their order; empty: as the library or the file knows them.
        class_map: Class folder or label to the output that stands for it: its number, name or wnid.
        mean: Per channel, subtracted from images in [0, 1]; empty: the model's own.
        std: Per channel, by which they are divided then; empty: the model's own.
        input_size: Side of the input, or height and width, pixels; empty: the model's own.
        crop: Share of the resized image that the centre crop keeps; None: the model's own.
        interpolation: Filter of the resize; None: the model's own.
    """

    num_classes: int | None = None
    class_names: tuple[str, ...] = ()
    class_map: Mapping[str, str] = field(default_factory=dict)
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    input_size: tuple[int, ...] = ()
    crop: float | None = None
    interpolation: str | None = None

    def __post_init__(self) -> None:
        """Refuse what no model could take."""
        for name in ("mean", "std"):
            values = getattr(self, name)
            if values and len(values) not in (1, CHANNELS):
                raise _wrong(name, f"must be one number, or {CHANNELS} for the channels", values)
        if self.std and min(self.std) <= 0:
            raise _wrong("std", "must be above 0", self.std)
        if self.input_size and (len(self.input_size) > 2 or min(self.input_size) < 1):
            raise _wrong("input_size", "must be pixels such as 224 or 224x160", self.input_size)
        if self.crop is not None and not 0 < self.crop <= 1:
            raise _wrong(
                "crop", "must be a share above 0 and up to 1, such as 0.875 for 224 of 256", self.crop
            )
        count = len(self.class_names)
        if count and self.num_classes not in (None, count):
            raise _wrong("num_classes", f"must be the number of class names, {count}", self.num_classes)
        twice = next((one for one in self.class_names if self.class_names.count(one) > 1), None)
        if count and count < 1000 and twice is not None:
            raise _wrong("class_names", "must be distinct", twice)


def _wrong(name: str, expected: str, came: Any) -> BadInputError:
    return BadInputError(f"{name} {expected}, got {_told(came)}", options=(name,))


def _told(value: Any) -> str:
    return ", ".join(f"{one:g}" for one in value) if isinstance(value, tuple) else repr(value)


def read_numbers(given: Any) -> Any:
    """Return numbers where they are given as texts such as ``0.5`` and ``0.485,0.456,0.406``."""
    return _read(given, float, ",")


def read_size(given: Any) -> Any:
    """Return the sides of an image where they are given as texts such as ``224`` and ``224x160``."""
    return _read(given, int, "x")


def _read(given: Any, kind: type[int] | type[float], between: str) -> Any:
    """Return what texts stand for; what is no number stays, for the option to refuse."""
    several = given if isinstance(given, list | tuple) else (given,)
    parts = [part for one in several for part in (one.split(between) if isinstance(one, str) else (one,))]
    found = []
    for part in parts:
        try:
            found.append(kind(part) if isinstance(part, str) else part)
        except ValueError:
            found.append(part)
    return tuple(found)


def per_channel(values: Sequence[float]) -> tuple[float, ...]:
    """Return one value per channel, where one alone holds for all."""
    return tuple(values) * CHANNELS if len(values) == 1 else tuple(values)
