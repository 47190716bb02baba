# SPDX-License-Identifier: Apache-2.0
"""The fast engine of APM: forward and backward by hand for many students at once, on flat weights and gradients.

Between the two ends of `_apm_ends` lie two layers of ordinary products. Every buffer that the locations fill is
made once for a fit and written over, and gradients are written to where Adam reads them.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from ._dims import Student
from ._ends import POOLS, First, Pool, errors
from ._graph import tensor_float
from ._tiles import INNER, Tiles

Products = Literal["full", "tf32", "bfloat16"]


class Fast:
    """The fast engine.

    Args:
        student: The sizes.
        weights: (N, P), read at every pass.
        grads: (N, P), written by `backward`; without the inner layers' weights where there are tiles.
        patches: (N, patches, pixels), or None.
        target: (N, D), or (N, D, L) for a student without pooling.
        products: Precision of the two inner layers' products; ``"tf32"`` rounds what enters them, on
            GPUs alone, and ``"bfloat16"`` what enters and leaves them, weights and sums staying what they are.
        tiles: Takes Adam's step on the inner layers' weights within `backward`.
    """

    def __init__(
        self,
        student: Student,
        weights: Tensor,
        grads: Tensor,
        patches: Tensor | None,
        target: Tensor,
        products: Products = "full",
        tiles: Tiles | None = None,
    ) -> None:
        self.student, self.target, self.half = student, target, products == "bfloat16"
        self.tensor_float = products == "tf32" and weights.is_cuda
        self.named, self.tiles = student.unpack(weights), tiles
        self.grads = student.unpack(grads, () if tiles is None else INNER)
        self.first = First(student, self.named, self.grads, patches)
        self.pool: Pool = POOLS[student.pooling](student, self.named, self.grads)
        places = student.grid[0] * student.grid[1]
        self.h = [weights.new_empty(len(weights), width, places) for width in student.dims.widths]
        self.g = [torch.empty_like(h) for h in self.h]

    def forward(self) -> tuple[Tensor, Tensor]:
        """Return losses (N,) and outputs, of the target's shape."""
        down, across = self.first.forward()
        grid = torch.unflatten(self.h[0], 2, self.student.grid)
        torch.add(down[..., None], across[..., None, :], out=grid).relu_()
        with tensor_float(wanted=self.tensor_float):
            self._layer("fc2", self.h[0], self.h[1])
            self._layer("fc3", self.h[1], self.h[2])
        self.predicted = self.pool.forward(self.h[2])
        self.errors = errors(self.predicted, self.target)
        return self.errors.losses, self.predicted

    def backward(self) -> None:
        """Write the gradients of the losses that `forward` gave last."""
        g = self.g
        low = self.pool.backward(self.h[2], self.errors.gradient)
        torch.bmm(low.left.mT, low.right, out=g[2])
        mask(g[2], self.h[2])
        with tensor_float(wanted=self.tensor_float):
            self._layer_grad("fc3", g[2], self.h[1], g[1])
            self._layer_grad("fc2", g[1], self.h[0], g[0])
        first = torch.unflatten(g[0], 2, self.student.grid)
        self.first.backward(first.sum(3), first.sum(2))

    def _layer(self, name: str, h: Tensor, out: Tensor) -> None:
        bias, weight = self.named[f"{name}.bias"][..., None], self.named[f"{name}.weight"]
        if self.half:
            self._product(weight, h, out).add_(bias).relu_()
        else:
            torch.baddbmm(bias, weight, h, out=out).relu_()

    def _layer_grad(self, name: str, g: Tensor, h: Tensor, below: Tensor) -> None:
        """Write the gradients of a layer's weights, or move these, and into ``below`` that of its input."""
        weight = f"{name}.weight"
        torch.sum(g, -1, out=self.grads[f"{name}.bias"])
        self._product(self.named[weight].mT, g, below)
        if self.tiles is None:
            self._product(g, h.mT, self.grads[weight])
        else:
            self.tiles(weight, lambda rows, out: self._product(g[:, rows], h.mT, out))
        mask(below, h)

    def _product(self, left: Tensor, right: Tensor, out: Tensor) -> Tensor:
        if self.half:
            return out.copy_(torch.bmm(left.bfloat16(), right.bfloat16()))
        return torch.bmm(left, right, out=out)


def mask(gradient: Tensor, h: Tensor) -> None:
    """Set a gradient to zero in place where a ReLU gave zero: the library's kernel, a tenth of a product's time."""
    torch.ops.aten.threshold_backward.grad_input(gradient, h, 0, grad_input=gradient)
