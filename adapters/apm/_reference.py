# SPDX-License-Identifier: Apache-2.0
"""The student of APM as it is described: every location by itself, keys and values formed, plain autograd.

Each image has a student of its own, so every tensor has a leading axis of N students. No product is saved
here; `_apm_fast` and `_apm_active` compute the same numbers at a fraction of the cost.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ._dims import Student, Tensors
from ._ends import errors


def forward(student: Student, named: Tensors, patches: Tensor | None) -> Tensor:
    """Return the outputs of N students: (N, D), or without pooling (N, D, L).

    Args:
        student: Their sizes.
        named: Their weights (N, ...) by name.
        patches: (N, patches, pixels) of the images, or None for students that see no image.
    """
    features = locations(student, named, patches)
    if student.pooling == "none":
        return features
    if student.pooling == "mean":
        return features.mean(-1)
    return _attend(student, named, features + student.table(student.feature, features))


def locations(
    student: Student, named: Tensors, patches: Tensor | None, places: Tensor | None = None
) -> Tensor:
    """Return the features (N, D, L) of the locations, before any pooling.

    Args:
        student: Sizes of the students.
        named: Their weights (N, ...) by name.
        patches: (N, patches, pixels) of the images, or None for students that see no image.
        places: (L,) which locations, row by row; None for all. What one gives does not depend on the others.
    """
    h = _inputs(student, named, patches, places)
    first = torch.cat([named["fc1.column"], named["fc1.across"], named["fc1.down"]], dim=2)
    for weight, bias in (
        (first, named["fc1.bias"]),
        (named["fc2.weight"], named["fc2.bias"]),
        (named["fc3.weight"], named["fc3.bias"]),
    ):
        h = torch.relu(weight @ h + bias[..., None])
    return named["project.weight"] @ h + named["project.bias"][..., None]


def _inputs(student: Student, named: Tensors, patches: Tensor | None, places: Tensor | None) -> Tensor:
    """Return the image's column above the code of each location, (N, column + code, L)."""
    count = len(named["fc1.bias"])
    code = student.table(student.dims.code, named["fc1.bias"])
    if places is not None:
        code = code[:, places]
    column = code.new_zeros(count, student.column)
    if patches is not None:
        column = (patches @ named["patch.weight"][..., None]).squeeze(-1) + named["patch.bias"]
    length = code.shape[1]
    return torch.cat([column[..., None].expand(-1, -1, length), code.expand(count, -1, -1)], dim=1)


def _attend(student: Student, named: Tensors, u: Tensor) -> Tensor:
    """Return what the one query gathers (N, D) from the locations (N, D, L)."""
    heads = student.heads

    def project(name: str, x: Tensor) -> Tensor:
        mapped = named[f"{name}.weight"] @ x + named[f"{name}.bias"][..., None]
        return torch.unflatten(mapped, 1, (heads, -1))

    query, keys, values = project("q", named["query"][..., None]), project("k", u), project("v", u)
    share = (query.mT @ keys / math.sqrt(student.feature / heads)).softmax(-1)
    gathered = (values @ share.mT).flatten(1)
    return (named["out.weight"] @ gathered[..., None]).squeeze(-1) + named["out.bias"]


class Reference:
    """The reference engine: losses by the definition, gradients by autograd.

    Args:
        student: The sizes.
        weights: (N, P), read at every pass.
        grads: (N, P), written by `backward`.
        patches: (N, patches, pixels), or None.
        target: (N, D), or (N, D, L) without pooling.
    """

    def __init__(
        self, student: Student, weights: Tensor, grads: Tensor, patches: Tensor | None, target: Tensor
    ) -> None:
        self.student, self.patches, self.target = student, patches, target
        self.named, self.grads = student.unpack(weights), student.unpack(grads)

    def forward(self) -> tuple[Tensor, Tensor]:
        """Return losses (N,) and outputs, of the target's shape."""
        self.leaves = {name: tensor.detach().requires_grad_() for name, tensor in self.named.items()}
        with torch.enable_grad():
            predicted = forward(self.student, self.leaves, self.patches)
            self.losses = errors(predicted, self.target).losses
        return self.losses.detach(), predicted.detach()

    def backward(self) -> None:
        """Write the gradients of the losses that `forward` gave last."""
        # The students share nothing, so the gradient of the sum is each one's own.
        gradients = torch.autograd.grad(
            self.losses.sum(), list(self.leaves.values()), materialize_grads=True, allow_unused=True
        )
        with torch.no_grad():  # where the views were made; torch 2.6 insists on it
            for name, grad in zip(self.leaves, gradients, strict=True):
                self.grads[name].copy_(grad)
