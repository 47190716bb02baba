# SPDX-License-Identifier: Apache-2.0
"""The active engine of APM: units that are off are skipped, and those that are always on have a closed form.

For one student and its image every unit is off at all locations, on at all of them, or mixed. The bounds are
exact, and so is what follows: a unit that is off is skipped, forward and backward; one that is always on is linear,
so in the first layer it stays the sum of a row and a column term, and above it its gradient stays a combination of
the rows that the gradients of the layers above consist of. At the published sizes few units are mixed after the
first updates. The sets differ from student to student, so students are taken one by one.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from ._dims import Student
from ._ends import Attention, First, Mean, Pool
from ._fast import mask

AT_ONCE = 256
"""Rows of a gradient that are put in place together."""


class Units(NamedTuple):
    """The units of a layer that are not always off: those that are always on, then the mixed ones."""

    on: Tensor
    mixed: Tensor

    @property
    def alive(self) -> Tensor:
        """Both, the ones that are always on first."""
        return torch.cat([self.on, self.mixed])

    def all_mixed(self) -> Units:
        """Return the same units, all taken as mixed, which is always right."""
        return Units(self.on[:0], self.alive)


class Rows(NamedTuple):
    """The gradient before a layer's ReLU, by unit.

    Attributes:
        coefficients: (units that are always on, r); their gradient is ``coefficients @ basis[:r]``.
        basis: (r + mixed units, L); the gradient of the mixed ones is ``basis[r:]``.
    """

    coefficients: Tensor
    basis: Tensor


def partition(low: Tensor, high: Tensor) -> Units:
    """Return the units by the bounds of what enters their ReLU; at 0 it passes no gradient on."""
    return Units((low > 0).nonzero()[:, 0], ((low <= 0) & (high > 0)).nonzero()[:, 0])


class Active:
    """The active engine; the arguments are those of `_apm_fast.Fast`."""

    def __init__(
        self, student: Student, weights: Tensor, grads: Tensor, patches: Tensor | None, target: Tensor
    ) -> None:
        self._each = [
            _One(student, weights[i : i + 1], grads[i : i + 1],
                 None if patches is None else patches[i : i + 1], target[i : i + 1])
            for i in range(len(weights))
        ]  # fmt: skip

    def forward(self) -> tuple[Tensor, Tensor]:
        """Return losses (N,) and outputs (N, D)."""
        losses, predicted = zip(*(one.forward() for one in self._each), strict=True)
        return torch.cat(losses), torch.cat(predicted)

    def backward(self) -> None:
        """Write the gradients of the losses that `forward` gave last."""
        for one in self._each:
            one.backward()


class _One:
    """One student; the leading axis of 1 is dropped between the two ends."""

    def __init__(
        self, student: Student, weights: Tensor, grads: Tensor, patches: Tensor | None, target: Tensor
    ) -> None:
        self.student, self.target, self.grid = student, target, student.grid
        named, into = student.unpack(weights), student.unpack(grads)
        self.first = First(student, named, into, patches)
        self.pool: Pool = (Attention if student.pooling == "attention" else Mean)(student, named, into)
        self.named = {name: tensor[0] for name, tensor in named.items()}
        self.grads = {name: tensor[0] for name, tensor in into.items()}

    def forward(self) -> tuple[Tensor, Tensor]:
        down, across = (part[0] for part in self.first.forward())
        self.down, self.across = down, across
        # Rounding is monotonic, so the sum of the least terms bounds every rounded sum from below, exactly.
        self.units1 = partition(down.amin(1) + across.amin(1), down.amax(1) + across.amax(1))
        on, mixed = self.units1
        self.h1 = (down[mixed][..., None] + across[mixed][:, None, :]).flatten(1).relu_()
        self.w2 = self.named["fc2.weight"].index_select(1, self.units1.alive)
        z = torch.addmm(self.named["fc2.bias"][:, None], self.w2[:, len(on) :], self.h1)
        linear = self.w2[:, : len(on)] @ torch.cat([down[on], across[on]], dim=1)
        grid = torch.unflatten(z, 1, self.grid)
        grid.add_(linear[:, : self.grid[0], None]).add_(linear[:, None, self.grid[0] :])
        self.units2 = partition(z.amin(1), z.amax(1))
        self.h2 = z.index_select(0, self.units2.alive).relu_()
        self.w3 = self.named["fc3.weight"].index_select(1, self.units2.alive)
        z = torch.addmm(self.named["fc3.bias"][:, None], self.w3, self.h2)
        self.units3 = partition(z.amin(1), z.amax(1))
        self.h3 = z.relu_()
        self.predicted = self.pool.forward(self.h3[None])
        return (self.predicted - self.target).square().mean(-1), self.predicted

    def backward(self) -> None:
        dy = (self.predicted - self.target) * (2 / self.student.feature)
        low = self.pool.backward(self.h3[None], dy)
        places, (on2, mixed2) = self.h3.shape[1], self.units2
        units = _factored(self.units3, len(low.right[0]), len(on2) + len(mixed2), places)
        left, mixed = low.left[0].index_select(1, units.alive), self.h3.index_select(0, units.mixed)
        rows = _rows(units, left, low.right[0], mixed)
        self._write("fc3", units, rows, rows.basis @ self.h2.T, self.units2.alive)
        below = _below(units, rows, self.w3)

        kept = _factored(self.units2, len(rows.basis), len(self.units1.mixed), places)
        mixed = self.h2 if kept is not self.units2 else self.h2[len(on2) :]
        rows = _rows(kept, below, rows.basis, mixed)
        basis = torch.unflatten(rows.basis, 1, self.grid)
        along, over = basis.sum(1), basis.sum(2)  # (r, W) and (r, H)
        on1 = self.units1.on
        linear = over @ self.down[on1].T + along @ self.across[on1].T
        self._write("fc2", kept, rows, torch.cat([linear, rows.basis @ self.h1.T], dim=1), self.units1.alive)
        below = _below(kept, rows, self.w2)
        self._bottom(below, rows.basis, along, over)

    def _write(self, name: str, units: Units, rows: Rows, products: Tensor, inputs: Tensor) -> None:
        """Write a layer's gradients.

        Args:
            name: Of the layer.
            units: Its living units.
            rows: The gradient before their ReLU.
            products: Of the basis with the living inputs, (r, I).
            inputs: Indices of the living inputs.
        """
        rank, grad = rows.coefficients.shape[1], self.grads[f"{name}.weight"].zero_()
        for start in range(0, len(units.on), AT_ONCE):
            part = slice(start, start + AT_ONCE)
            _put(grad, units.on[part], inputs, rows.coefficients[part] @ products[:rank])
        for start in range(0, len(units.mixed), AT_ONCE):
            part = slice(start, start + AT_ONCE)
            _put(grad, units.mixed[part], inputs, products[rank:][part])
        sums = rows.basis.sum(1)
        bias = torch.cat([rows.coefficients @ sums[:rank], sums[rank:]])
        self.grads[f"{name}.bias"].zero_().index_copy_(0, units.alive, bias)

    def _bottom(self, below: Tensor, basis: Tensor, along: Tensor, over: Tensor) -> None:
        """Write the first layer's gradients from the coefficients (r, I) of its living units."""
        on = self.units1.on
        explicit = below[:, len(on) :].T @ basis
        mask(explicit, self.h1)
        grid = torch.unflatten(explicit, 1, self.grid)
        linear = below[:, : len(on)].T
        down, across = torch.zeros_like(self.down), torch.zeros_like(self.across)
        down.index_copy_(0, self.units1.alive, torch.cat([linear @ over, grid.sum(2)]))
        across.index_copy_(0, self.units1.alive, torch.cat([linear @ along, grid.sum(1)]))
        self.first.backward(down[None], across[None])


def _put(grad: Tensor, units: Tensor, inputs: Tensor, block: Tensor) -> None:
    """Write a block of a gradient, by the indices of its rows and of its columns."""
    wide = block.new_zeros(len(block), grad.shape[1]).index_copy_(1, inputs, block)
    grad.index_copy_(0, units, wide)


def _below(units: Units, rows: Rows, weight: Tensor) -> Tensor:
    """Return the gradient of a layer's living inputs as coefficients (r, I) on the basis.

    Args:
        units: Its living units.
        rows: The gradient before their ReLU.
        weight: The columns of the layer's weight at the living inputs.
    """
    on = rows.coefficients.T @ weight.index_select(0, units.on)
    return torch.cat([on, weight.index_select(0, units.mixed)])


def _factored(units: Units, rank: int, inputs: int, places: int) -> Units:
    """Return the units with those that are always on apart only where that saves products.

    Args:
        units: Living units of a layer.
        rank: Rows of the basis from above.
        inputs: Living inputs whose products run over all locations.
        places: Number L of locations.
    """
    return units if 2 * rank * inputs < places * (rank + 2 * inputs) else units.all_mixed()


def _rows(units: Units, coefficients: Tensor, basis: Tensor, h: Tensor) -> Rows:
    """Return the gradient before a layer's ReLU.

    Args:
        units: Its living units.
        coefficients: (r, units) of the gradient after the ReLU on the basis.
        basis: (r, L).
        h: (mixed, L), what the mixed units gave.
    """
    mixed = coefficients[:, len(units.on) :].T @ basis
    mask(mixed, h)
    if not len(units.on):
        return Rows(coefficients.new_zeros(0, 0), mixed)
    return Rows(coefficients[:, : len(units.on)].T, torch.cat([basis, mixed]))
