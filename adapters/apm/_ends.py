# SPDX-License-Identifier: Apache-2.0
"""The two ends of APM's student with their derivatives by hand: the first layer, and the pooling.

The first layer sees the column of the image, the code of the grid's column and the code of its row side by
side, so its input to the ReLU is a sum ``down[:, h] + across[:, w]`` of two small products. The one query of the
attention is moved through keys and values, which are never formed: locations meet it through one row per head.
Names: N students, F units of the first layer, T of the third, D of the feature, M heads, grid H x W.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from ._dims import Student, Tensors


class Low(NamedTuple):
    """A gradient (N, T, L) as ``left^T right``: ``left`` (N, r, T) and ``right`` (N, r, L) with a small r."""

    left: Tensor
    right: Tensor


class Pool(Protocol):
    """The pooling of the third layer (N, T, L) into the output (N, D), and its derivative."""

    def forward(self, h: Tensor) -> Tensor:
        """Return the output (N, D)."""

    def backward(self, h: Tensor, dy: Tensor) -> Low:
        """Write the gradients of the pooling's weights, and return that of the third layer."""


def apply(matrices: Tensor, vectors: Tensor) -> Tensor:
    """Return (N, A) of N matrices (N, A, B) and N vectors (N, B)."""
    return torch.bmm(matrices, vectors[..., None]).squeeze(-1)


def _outer(left: Tensor, right: Tensor, out: Tensor) -> None:
    """Write the outer products (N, A, B) of vectors (N, A) and (N, B)."""
    torch.mul(left[..., None], right[:, None, :], out=out)


class First:
    """The first layer.

    Args:
        student: The sizes.
        named: Weights (N, ...) by name.
        grads: Where the gradients go, by name.
        patches: (N, patches, pixels), or None.
    """

    def __init__(self, student: Student, named: Tensors, grads: Tensors, patches: Tensor | None) -> None:
        self.named, self.grads, self.patches = named, grads, patches
        self.code = student.codes(student.dims.code, named["fc1.bias"])
        self.column: Tensor | None = None

    def forward(self) -> tuple[Tensor, Tensor]:
        """Return ``down`` (N, F, H) and ``across`` (N, F, W)."""
        named, shared = self.named, self.named["fc1.bias"]
        if self.patches is not None:
            self.column = apply(self.patches, named["patch.weight"]) + named["patch.bias"]
            shared = shared + apply(named["fc1.column"], self.column)
        down = _shared(named["fc1.down"], self.code.down).add_(shared[..., None])
        return down, _shared(named["fc1.across"], self.code.across)

    def backward(self, down: Tensor, across: Tensor) -> None:
        """Write the gradients from those of ``down`` (N, F, H) and ``across`` (N, F, W)."""
        grads, total = self.grads, down.sum(-1)
        grads["fc1.bias"].copy_(total)
        grads["fc1.down"].copy_(_shared(down, self.code.down.T))
        grads["fc1.across"].copy_(_shared(across, self.code.across.T))
        if self.patches is None or self.column is None:
            return
        _outer(total, self.column, grads["fc1.column"])
        column = apply(self.named["fc1.column"].mT, total)
        grads["patch.weight"].copy_(apply(self.patches.mT, column))
        torch.sum(column, -1, keepdim=True, out=grads["patch.bias"])


class Attention:
    """Pooling by one learned query.

    Args:
        student: The sizes.
        named: Weights (N, ...) by name.
        grads: Where the gradients go, by name.
    """

    def __init__(self, student: Student, named: Tensors, grads: Tensors) -> None:
        self.named, self.grads, self.grid, self.heads = named, grads, student.grid, student.heads
        self.scale = math.sqrt(student.heads / student.feature)
        self.code, self.half = student.codes(student.feature, named["query"]), student.feature // 2

    def forward(self, h: Tensor) -> Tensor:
        """Return the output (N, D) of the third layer (N, T, L).

        What is constant over the locations drops out of the softmax, with it the bias of the keys.
        """
        named = self.named
        self.query = (apply(named["q.weight"], named["query"]) + named["q.bias"]) * self.scale
        self.probe = self._by_head("k.weight", self.query)
        self.row = self.probe @ named["project.weight"]
        self.share = (torch.bmm(self.row, h) + self._places(self.probe)).softmax(-1)
        self.seen = torch.bmm(self.share, h.mT)
        self.mean = self.seen @ named["project.weight"].mT + named["project.bias"][:, None]
        self.mean += self._codes(self.share)
        value = torch.matmul(self._heads(named["v.weight"]), self.mean[..., None]).flatten(1)
        self.value = value + named["v.bias"]
        return apply(named["out.weight"], self.value) + named["out.bias"]

    def backward(self, h: Tensor, dy: Tensor) -> Low:
        """Write the gradients of attention and projection; that of ``h`` has a rank of two per head."""
        named, grads = self.named, self.grads
        grads["out.bias"].copy_(dy)
        _outer(dy, self.value, grads["out.weight"])
        dvalue = apply(named["out.weight"].mT, dy)
        grads["v.bias"].copy_(dvalue)
        self._by_head_grad("v.weight", dvalue, self.mean)
        dmean = self._by_head("v.weight", dvalue)
        torch.sum(dmean, 1, out=grads["project.bias"])
        dseen = dmean @ named["project.weight"]
        dshare = torch.bmm(dseen, h) + self._places(dmean)
        dscore = self.share * (dshare - (self.share * dshare).sum(-1, keepdim=True))
        drow = torch.bmm(dscore, h.mT)
        dprobe = drow @ named["project.weight"].mT + self._codes(dscore)
        # Two sums over heads as one product: the projection enters through the values and through the scores.
        torch.bmm(
            torch.cat([dmean, self.probe], 1).mT, torch.cat([self.seen, drow], 1), out=grads["project.weight"]
        )
        self._by_head_grad("k.weight", self.query, dprobe)
        grads["k.bias"].zero_()
        dquery = torch.matmul(self._heads(named["k.weight"]), dprobe[..., None]).flatten(1) * self.scale
        grads["q.bias"].copy_(dquery)
        _outer(dquery, named["query"], grads["q.weight"])
        grads["query"].copy_(apply(named["q.weight"].mT, dquery))
        return Low(torch.cat([dseen, self.row], 1), torch.cat([self.share, dscore], 1))

    def _heads(self, weight: Tensor) -> Tensor:
        return torch.unflatten(weight, 1, (self.heads, -1))

    def _by_head(self, name: str, vector: Tensor) -> Tensor:
        """Return (N, M, D): each head's part of a vector (N, D) times its rows of a weight (N, D, D)."""
        parts = torch.unflatten(vector, 1, (self.heads, 1, -1))
        return torch.matmul(parts, self._heads(self.named[name])).squeeze(2)

    def _by_head_grad(self, name: str, vector: Tensor, rows: Tensor) -> None:
        """Write the outer products of each head's part of a vector (N, D) and its row of (N, M, D)."""
        parts = torch.unflatten(vector, 1, (self.heads, -1))
        torch.mul(parts[..., None], rows[:, :, None, :], out=self._heads(self.grads[name]))

    def _places(self, rows: Tensor) -> Tensor:
        """Return the products (N, M, L) of rows (N, M, D) with the code of every location."""
        across = rows[..., : self.half] @ self.code.across
        down = rows[..., self.half :] @ self.code.down
        return (down[..., None] + across[..., None, :]).flatten(2)

    def _codes(self, weights: Tensor) -> Tensor:
        """Return the sums (N, M, D) of the locations' codes under weights (N, M, L)."""
        grid = torch.unflatten(weights, 2, self.grid)
        return torch.cat([grid.sum(2) @ self.code.across.T, grid.sum(3) @ self.code.down.T], -1)


class Mean:
    """Pooling by the mean over the locations.

    Args:
        student: The sizes.
        named: Weights (N, ...) by name.
        grads: Where the gradients go, by name.
    """

    def __init__(self, student: Student, named: Tensors, grads: Tensors) -> None:
        self.named, self.grads = named, grads

    def forward(self, h: Tensor) -> Tensor:
        """Return the output (N, D) of the third layer (N, T, L)."""
        self.mean = h.mean(-1)
        return apply(self.named["project.weight"], self.mean) + self.named["project.bias"]

    def backward(self, h: Tensor, dy: Tensor) -> Low:
        """Write the gradients of the projection; that of ``h`` is the same at every location."""
        self.grads["project.bias"].copy_(dy)
        _outer(dy, self.mean, self.grads["project.weight"])
        left = apply(self.named["project.weight"].mT, dy)[:, None, :] / h.shape[-1]
        return Low(left, h.new_ones(len(h), 1, h.shape[-1]))


class Locations:
    """No pooling: every location is an output of its own.

    Args:
        student: The sizes.
        named: Weights (N, ...) by name.
        grads: Where the gradients go, by name.
    """

    def __init__(self, student: Student, named: Tensors, grads: Tensors) -> None:
        self.named, self.grads = named, grads

    def forward(self, h: Tensor) -> Tensor:
        """Return the outputs (N, D, L) of the third layer (N, T, L)."""
        return torch.baddbmm(self.named["project.bias"][..., None], self.named["project.weight"], h)

    def backward(self, h: Tensor, dy: Tensor) -> Low:
        """Write the gradients of the projection from that of the outputs (N, D, L)."""
        torch.sum(dy, -1, out=self.grads["project.bias"])
        torch.bmm(dy, h.mT, out=self.grads["project.weight"])
        return Low(self.named["project.weight"], dy)


POOLS: dict[str, Callable[[Student, Tensors, Tensors], Pool]] = {
    "attention": Attention,
    "mean": Mean,
    "none": Locations,
}


class Errors(NamedTuple):
    """Mean squared errors of N students.

    Attributes:
        losses: (N,).
        gradient: Of each loss by its student's outputs, of their shape.
    """

    losses: Tensor
    gradient: Tensor


def errors(predicted: Tensor, target: Tensor) -> Errors:
    """Return the mean squared errors of outputs (N, D) or (N, D, L); a target that is NaN is held out.

    Only targets of locations are looked at for NaN: a student that is fitted to one feature always has all of it.
    """
    difference = predicted - target
    if target.ndim == 2:
        return Errors(difference.square().mean(-1), difference * (2 / target.shape[1]))
    held_out = target.isnan()
    difference = difference.masked_fill(held_out, 0)
    each = (~held_out).sum((1, 2)).clamp(min=1).to(predicted.dtype)
    return Errors(difference.square().sum((1, 2)) / each, difference * (2 / each)[:, None, None])


def _shared(rows: Tensor, columns: Tensor) -> Tensor:
    """Return (N, A, C) of N matrices (N, A, B) and one (B, C)."""
    return torch.bmm(rows, columns.expand(len(rows), -1, -1))
