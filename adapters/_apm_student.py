# SPDX-License-Identifier: Apache-2.0
"""The student of APM: its weights, its forward pass, and the fit of many students at once.

Every image has a student of its own; the weights of N students are one tensor (N, P), and each layer is a
batched matrix product. The forward pass is exact but forms nothing that it does not need: the first layer
sees the column of the image, the code of a row and the code of a column side by side, so it is a sum of three
small products; and the one query of the attention is moved through keys and values, which are never formed.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from tta_bench.errors import BadInputError, IncompatibleError
from tta_bench.optim import gradient

Tensors = dict[str, Tensor]
AT_ONCE_ON_CPU = 1 << 20
"""Parameters fitted at once on a CPU: more of them leave its caches and cost time."""


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


SIZES: dict[str, Dims] = {
    "pocket": Dims((32, 32), 4, (8, 8), 32, (128, 128, 64)),
    "published": Dims((448, 448), 14, (32, 32), 1024, (4096, 2048, 1024)),
}


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


@dataclass(frozen=True)
class Student:
    """The map from the weights (N, P) of N students and their patches to N features.

    Attributes:
        dims: Its sizes.
        feature: Length D of the teacher's feature, a multiple of 4.
        pooling: ``"attention"`` by one learned query, or the ``"mean"`` over the locations.

    Raises:
        IncompatibleError: If the sizes do not fit together.
    """

    dims: Dims
    feature: int
    pooling: Literal["attention", "mean"] = "attention"

    def __post_init__(self) -> None:
        """Refuse sizes for which there is no code or no split into heads."""
        if self.feature % 4 or self.dims.code % 4 or self.feature % self.heads:
            raise IncompatibleError(
                "the student needs a code and a feature whose lengths are multiples of 4 and heads that "
                f"divide the feature; got code {self.dims.code}, feature {self.feature}, heads {self.heads}"
            )

    @property
    def heads(self) -> int:
        """Number of heads of the attention."""
        return self.dims.heads or math.gcd(8, self.feature)

    @property
    def column(self) -> int:
        """Length of the column: the number of patches."""
        return (self.dims.image[0] // self.dims.patch) * (self.dims.image[1] // self.dims.patch)

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Shapes of one student's tensors by name, in the order in which they lie in the weights.

        The first layer is stored as its parts for the column, the code of the grid's column and the code of its
        row, and the attention's input map as query, key and value: autograd pads the gradient of a slice.
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

    @property
    def size(self) -> int:
        """Number P of weights of one student."""
        return sum(math.prod(shape) for shape in self.shapes.values())

    def pack(self, named: Tensors) -> Tensor:
        """Return weights (N, P) from tensors (N, ...) by name."""
        return torch.cat([named[name].flatten(1) for name in self.shapes], dim=1)

    def unpack(self, weights: Tensor) -> Tensors:
        """Return views (N, ...) by name of weights (N, P)."""
        parts = torch.split(weights, [math.prod(shape) for shape in self.shapes.values()], dim=1)
        return {
            name: torch.unflatten(part, 1, shape)
            for part, (name, shape) in zip(parts, self.shapes.items(), strict=True)
        }

    def patches(self, images: Tensor) -> Tensor:
        """Return the patches (N, patches, 3 * patch * patch) of normalised images (N, 3, H, W)."""
        return F.unfold(images, self.dims.patch, stride=self.dims.patch).transpose(1, 2)

    def forward(self, named: Tensors, patches: Tensor | None) -> Tensor:
        """Return the features (N, D) of N students; without patches the column is 0."""
        h = self._hidden(named, patches)
        for name in ("fc2", "fc3"):
            h = torch.baddbmm(named[f"{name}.bias"][..., None], named[f"{name}.weight"], h).relu()
        if self.pooling == "mean":
            return _apply(named["project.weight"], h.mean(-1)) + named["project.bias"]
        return self._attend(named, h)

    def _hidden(self, named: Tensors, patches: Tensor | None) -> Tensor:
        """Return the first hidden layer (N, F, L) from the image's part and the two parts of the code."""
        code, half = (
            positional_code(self.dims.grid, self.dims.code).to(named["fc1.bias"]),
            self.dims.code // 2,
        )
        across = named["fc1.across"] @ code[:half, 0, :]
        down = named["fc1.down"] @ code[half:, :, 0]
        shared = named["fc1.bias"]
        if patches is not None:
            column = _apply(patches, named["patch.weight"]) + named["patch.bias"]
            shared = shared + _apply(named["fc1.column"], column)
        return ((down + shared[..., None])[..., None] + across[:, :, None, :]).flatten(2).relu()

    def _attend(self, named: Tensors, h: Tensor) -> Tensor:
        """Return the output (N, D) of the attention of the one query over all locations.

        Keys are met from the query's side, values after the weighted sum. What is constant over the locations
        drops out of the softmax, with it the bias of the keys, whose gradient is 0.
        """
        d, heads = self.feature, self.heads
        code = positional_code(self.dims.grid, d).to(h).flatten(1)
        query = _apply(named["q.weight"], named["query"]) + named["q.bias"]
        query = torch.unflatten(query * math.sqrt(heads / d), 1, (heads, 1, -1))
        probe = (query @ torch.unflatten(named["k.weight"], 1, (heads, -1))).squeeze(2)
        scores = probe @ named["project.weight"] @ h + probe @ code
        share = scores.softmax(-1)
        seen = share @ h.mT @ named["project.weight"].mT + named["project.bias"][:, None] + share @ code.T
        value = (torch.unflatten(named["v.weight"], 1, (heads, -1)) @ seen[..., None]).flatten(1) + named[
            "v.bias"
        ]
        return _apply(named["out.weight"], value) + named["out.bias"]


def _apply(matrices: Tensor, vectors: Tensor) -> Tensor:
    """Return (N, A) of N matrices (N, A, B) and N vectors (N, B)."""
    return torch.bmm(matrices, vectors[..., None]).squeeze(-1)


@dataclass(frozen=True)
class Adam:
    """How a student is fitted.

    Attributes:
        lr: Learning rate.
        betas: Decay rates of the two moments.
        eps: Added to the root of the second moment.
        weight_decay: Coefficient of the L2 term in the gradient.
        every: Updates after which the rate falls to a tenth, 0 for never.
        leftover: Share of the last gradient that is added to the next, 0 but in the defects of the reference.
    """

    lr: float
    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-8
    weight_decay: float = 0.0
    every: int = 0
    leftover: float = 0.0

    def update(self, weights: Tensors, grads: Tensors, moments: tuple[Tensors, Tensors], done: int) -> None:
        """Take one step in place, the gradients being consumed; the tensors belong to the fit.

        Source: arXiv:1412.6980, algorithm 1.
        """
        lr = self.lr * 0.1 ** (done // self.every) if self.every else self.lr
        size, root = lr / (1 - self.betas[0] ** (done + 1)), math.sqrt(1 - self.betas[1] ** (done + 1))
        for name, weight in weights.items():
            grad, first, second = grads[name], moments[0][name], moments[1][name]
            if self.weight_decay:
                grad = grad + self.weight_decay * weight
            first.lerp_(grad, 1 - self.betas[0])
            second.mul_(self.betas[1]).addcmul_(grad, grad, value=1 - self.betas[1])
            weight.addcdiv_(first, torch.sqrt(second, out=grad).div_(root).add_(self.eps), value=-size)


class Moments(NamedTuple):
    """Adam's moments (N, P) and the updates so far."""

    first: Tensor
    second: Tensor
    done: int


class Fit(NamedTuple):
    """The course of N fits; entry k is the forward pass after k updates.

    Attributes:
        losses: (U + 1, N).
        predictions: (U + 1, N, D).
        weights: (N, P) after the last update.
        moments: Adam's moments after the last update.
    """

    losses: Tensor
    predictions: Tensor
    weights: Tensor
    moments: Moments


def fit(
    student: Student,
    weights: Tensor,
    patches: Tensor | None,
    target: Tensor,
    adam: Adam,
    updates: int,
    start: Moments | None = None,
) -> Fit:
    """Fit N students, each to its own target, and record the course.

    Args:
        student: Its sizes.
        weights: (N, P) to start from; not written to.
        patches: (N, patches, pixels) of the images, or None for students that see no image.
        target: (N, D).
        adam: The optimiser.
        updates: Number U of updates, 0 or more.
        start: Moments to start from, not written to; None for zero moments.
    """
    if updates < 0:
        raise BadInputError(f"the number of updates must be 0 or more, got {updates}")
    group = len(weights) if weights.is_cuda else max(1, AT_ONCE_ON_CPU // student.size)
    parts = [
        _fit(student, weights[i : i + group], None if patches is None else patches[i : i + group],
             target[i : i + group], adam, updates, start and _rows(start, i, i + group))
        for i in range(0, len(weights), group)
    ]  # fmt: skip
    if len(parts) == 1:
        return parts[0]
    return Fit(
        torch.cat([part.losses for part in parts], dim=1),
        torch.cat([part.predictions for part in parts], dim=1),
        torch.cat([part.weights for part in parts]),
        Moments(
            torch.cat([part.moments.first for part in parts]),
            torch.cat([part.moments.second for part in parts]),
            parts[0].moments.done,
        ),
    )


def _rows(moments: Moments, start: int, stop: int) -> Moments:
    return Moments(moments.first[start:stop], moments.second[start:stop], moments.done)


def _copies(student: Student, flat: Tensor) -> Tensors:
    """Return copies by name, each contiguous, that the fit may write to."""
    return {
        name: part.clone(memory_format=torch.contiguous_format) for name, part in student.unpack(flat).items()
    }


def _fit(
    student: Student,
    weights: Tensor,
    patches: Tensor | None,
    target: Tensor,
    adam: Adam,
    updates: int,
    start: Moments | None,
) -> Fit:
    def loss(named: Tensors) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        # The students share nothing, so the gradient of the sum is each one's own.
        predicted = student.forward(named, patches)
        each = (predicted - target).square().mean(-1)
        return each.sum(), (each, predicted)

    named = _copies(student, weights)
    begin = start or Moments(torch.zeros_like(weights), torch.zeros_like(weights), 0)
    moments, done = (_copies(student, begin.first), _copies(student, begin.second)), begin.done
    leftover: Tensors = {}
    course = []
    for _ in range(updates):
        grads, _, seen = gradient(loss, named)
        if adam.leftover:
            grads = {name: grad + adam.leftover * leftover.get(name, 0) for name, grad in grads.items()}
            leftover = {name: grad.clone() for name, grad in grads.items()}
        adam.update(named, grads, moments, done)
        done += 1
        course.append(seen)
    with torch.no_grad():
        course.append(loss(named)[1])
    losses, predictions = (torch.stack(values) for values in zip(*course, strict=True))
    first, second = (student.pack(each) for each in moments)
    return Fit(losses, predictions, student.pack(named), Moments(first, second, done))
