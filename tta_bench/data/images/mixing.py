# SPDX-License-Identifier: Apache-2.0
"""The draws of AugMix for a view: the share of the crop itself, and three weighted chains of distortions."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from tta_bench.data.images.distortions import OPERATIONS

CHAINS = DEPTH = 3
MIX_NUMBERS = [1, CHAINS, CHAINS, 3 * CHAINS * DEPTH]


class Mixing(NamedTuple):
    """The mix of each of V views.

    Attributes:
        share: (V, 1) of the crop itself, Beta(1, 1).
        weight: (V, 3) of the chains, Dirichlet(1, 1, 1).
        length: (V, 3) steps of the chains, less one.
        operation: (V, 3, 3) index of the distortion of each step.
        level: (V, 3, 3) uniform numbers that the strengths are made from.
        mirrored: (V, 3, 3) whether a geometric distortion goes the other way.
    """

    share: Tensor
    weight: Tensor
    length: Tensor
    operation: Tensor
    level: Tensor
    mirrored: Tensor


def mixing(numbers: Tensor) -> Mixing:
    """Return the mix that uniform numbers (V, 34) stand for.

    Source: AugMix, arXiv:1912.02781, algorithm 1.
    """
    share, weight, depth, rest = torch.split(numbers, MIX_NUMBERS, dim=1)
    # Normalised exponentials are Dirichlet(1, 1, 1); a uniform number is Beta(1, 1).
    weight = -torch.log1p(-weight)
    weight = weight / weight.sum(1, keepdim=True).clamp(min=1e-12)
    operation, level, sign = torch.unflatten(rest, 1, (3, CHAINS, DEPTH)).unbind(1)
    operation = (operation * len(OPERATIONS)).long().clamp(max=len(OPERATIONS) - 1)
    return Mixing(share, weight, (depth * DEPTH).long(), operation, level, sign < 0.5)
