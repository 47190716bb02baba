# SPDX-License-Identifier: Apache-2.0
"""Sizes of APM's student, its weights as one flat row, and the sine codes of its locations."""

from __future__ import annotations

import math
from collections.abc import Collection
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from tta_bench.errors import BadInputError, IncompatibleError

Tensors = dict[str, Tensor]
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class Dims(NamedTuple):
    """Sizes of a student.

    Attributes:
        image: Height and width of the image that it sees, pixels.
        patch: Side of a patch, pixels; the column has one number per patch.
        grid: Rows and columns of the location grid.
        code: Length of the positional code that follows the column, a multiple of 4.
        widths: Widths of the three hidden layers.
        heads: Heads of the attention; 0 for as many as divide the feature, eight at most.
    """

    image: tuple[int, int]
    patch: int
    grid: tuple[int, int]
    code: int
    widths: tuple[int, int, int]
    heads: int = 0


PUBLISHED = Dims((448, 448), 14, (32, 32), 1024, (4096, 2048, 1024))
SIZES: dict[str, Dims] = {
    "pocket": Dims((32, 32), 4, (8, 8), 32, (128, 128, 64)),
    "7m": PUBLISHED._replace(widths=(1408, 768, 512)),
    "14m": PUBLISHED._replace(widths=(2880, 1408, 704)),
    "published": PUBLISHED,
    "38m": PUBLISHED._replace(widths=(5760, 3072, 1536)),
    "53m": PUBLISHED._replace(widths=(7424, 3904, 1408)),
}
"""Named sizes. The weights of all but ``pocket`` are counted with a feature of 768 numbers."""


def to_dims(values: Any) -> Dims:
    """Return sizes from six values in order, the last of which may be left out.

    Raises:
        BadInputError: If no student can have them.
    """
    try:
        parts: Any = [tuple(part) if isinstance(part, list) else part for part in values]
        dims = Dims(*parts)
        numbers = (*dims.image, dims.patch, *dims.grid, dims.code, *dims.widths)
        possible = (
            (len(dims.image), len(dims.grid), len(dims.widths)) == (2, 2, 3)
            and all(isinstance(number, int) and number >= 1 for number in numbers)
            and isinstance(dims.heads, int) and dims.heads >= 0
            and min(dims.image) >= dims.patch
        )  # fmt: skip
    except TypeError:
        possible = False
    if not possible:
        raise BadInputError(
            "dims must be ((height, width), patch, (rows, columns), code, (three widths), heads) in whole numbers of "
            f"1 or more, heads 0 or more and no patch larger than the image, got {values}"
        )
    return dims


def seen(dims: Dims, images: Tensor) -> Tensor:
    """Return images (N, 3, H, W) in [0, 1] at the student's size, normalised by ImageNet's mean and deviation."""
    if tuple(images.shape[-2:]) != tuple(dims.image):
        images = F.interpolate(images, size=dims.image, mode="bilinear", antialias=True)
    mean, std = (images.new_tensor(values).view(-1, 1, 1) for values in (MEAN, STD))
    return (images - mean) / std


@lru_cache(maxsize=16)
def positional_code(grid: tuple[int, int], dim: int) -> Tensor:
    """Return the sine code (dim, H, W) of a location grid, float32.

    The first half of the channels depends on the column alone, the second half on the row alone. Built in
    float32 for every precision: the published tables are, and float64 ones differ from them by 3e-8.
    """
    half = dim // 2
    frequency = torch.exp(torch.arange(0, half, 2, dtype=torch.float32) * -(math.log(10000.0) / half))

    def axis(length: int) -> Tensor:
        angle = torch.arange(length, dtype=torch.float32)[:, None] * frequency
        return torch.stack([angle.sin(), angle.cos()], dim=-1).flatten(1).T

    height, width = grid
    across = axis(width)[:, None, :].expand(half, height, width)
    return torch.cat([across, axis(height)[:, :, None].expand(half, height, width)])


class Codes(NamedTuple):
    """The two halves of a positional code: ``across`` (dim / 2, W) by column, ``down`` (dim / 2, H) by row."""

    across: Tensor
    down: Tensor


@dataclass(frozen=True)
class Student:
    """The sizes of one student and the layout of its weights.

    Attributes:
        dims: Its sizes.
        feature: Length D of the teacher's feature, a multiple of 4.
        pooling: ``"attention"`` by one learned query, the ``"mean"`` over the locations, or ``"none"``: every location
            is an output of its own.
        stride: Every how many-th row and column of the location grid is used.

    Raises:
        BadInputError: If no student can have the sizes.
        IncompatibleError: If the sizes do not fit together.
    """

    dims: Dims
    feature: int
    pooling: Literal["attention", "mean", "none"] = "attention"
    stride: int = 1

    def __post_init__(self) -> None:
        """Refuse sizes that no student has, or for which there is no code or no split into heads."""
        to_dims(self.dims)
        if self.feature % 4 or self.dims.code % 4 or self.feature % self.heads:
            raise IncompatibleError(
                "the student needs a code and a feature whose lengths are multiples of 4 and heads that "
                f"divide the feature; got code {self.dims.code}, feature {self.feature}, heads {self.heads}"
            )
        if not self.stride >= 1:
            raise BadInputError(f"stride must be 1 or more, got {self.stride}")

    @property
    def heads(self) -> int:
        """Number of heads of the attention."""
        return self.dims.heads or math.gcd(8, self.feature)

    @property
    def column(self) -> int:
        """Length of the column: the number of patches."""
        return (self.dims.image[0] // self.dims.patch) * (self.dims.image[1] // self.dims.patch)

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of the locations that are used."""
        height, width = self.dims.grid
        return -(-height // self.stride), -(-width // self.stride)

    @cached_property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Shapes of one student's tensors by name, in the order in which they lie in the weights.

        The first layer is stored as its parts for the column, the code of the grid's column and the code of its
        row, and the attention's input map as query, key and value.
        """
        (first, second, third), d, half = self.dims.widths, self.feature, self.dims.code // 2
        shapes: dict[str, tuple[int, ...]] = {
            "patch.weight": (3 * self.dims.patch**2,), "patch.bias": (1,),
            "fc1.column": (first, self.column), "fc1.across": (first, half), "fc1.down": (first, half),
            "fc1.bias": (first,),
            "fc2.weight": (second, first), "fc2.bias": (second,),
            "fc3.weight": (third, second), "fc3.bias": (third,),
            "project.weight": (d, third), "project.bias": (d,),
        }  # fmt: skip
        if self.pooling == "attention":
            shapes["query"] = (d,)
            for name in ("q", "k", "v", "out"):
                shapes |= {f"{name}.weight": (d, d), f"{name}.bias": (d,)}
        return shapes

    @cached_property
    def size(self) -> int:
        """Number P of weights of one student."""
        return sum(math.prod(shape) for shape in self.shapes.values())

    def pack(self, named: Tensors) -> Tensor:
        """Return weights (N, P) from tensors (N, ...) by name."""
        return torch.cat([named[name].flatten(1) for name in self.shapes], dim=1)

    def unpack(self, weights: Tensor, without: Collection[str] = ()) -> Tensors:
        """Return views (N, ...) by name of weights (N, P), in which those of some names are left out."""
        shapes = {name: shape for name, shape in self.shapes.items() if name not in without}
        parts = torch.split(weights, [math.prod(shape) for shape in shapes.values()], dim=1)
        return {
            name: torch.unflatten(part, 1, shape)
            for part, (name, shape) in zip(parts, shapes.items(), strict=True)
        }

    def patches(self, images: Tensor) -> Tensor:
        """Return the patches (N, patches, 3 * patch * patch) of images (N, 3, H, W) as the student sees them."""
        return F.unfold(images, self.dims.patch, stride=self.dims.patch).transpose(1, 2)

    def codes(self, dim: int, like: Tensor) -> Codes:
        """Return the code of length ``dim`` of the locations that are used, in the type of a tensor."""
        code = positional_code(self.dims.grid, dim)[:, :: self.stride, :: self.stride].to(like)
        return Codes(code[: dim // 2, 0, :].contiguous(), code[dim // 2 :, :, 0].contiguous())

    def table(self, dim: int, like: Tensor) -> Tensor:
        """Return the whole code (dim, L), one column per location that is used."""
        return positional_code(self.dims.grid, dim)[:, :: self.stride, :: self.stride].to(like).flatten(1)
