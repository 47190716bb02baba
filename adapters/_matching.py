# SPDX-License-Identifier: Apache-2.0
"""Methods that compare unit image features, of one view or many, with unit class texts."""

from __future__ import annotations

from dataclasses import dataclass
from math import inf
from typing import Literal, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from tta_bench.losses import chosen_views, least
from tta_bench.method import Inputs, Need, ScoringMethod, SourceModel, State, Task, ViewPolicy

from ._ranges import one_of, within
from ._texts import text_side

NEEDS: frozenset[Need] = frozenset({"text", "features"})
"""The needs of a method of this kind."""


@dataclass(frozen=True)
class Matching(ScoringMethod):
    """Compare features with class texts; methods say what becomes of the comparison.

    Attributes:
        views: Views of each image, the image itself among them.
        selection: Share of the views that is kept, those of least entropy; one view at least.
        augmentation: How the other views are made: ``"crop"`` or ``"augmix"``.
    """

    views: int = 1
    selection: float = 0.1
    augmentation: Literal["crop", "augmix"] = "crop"

    def __post_init__(self) -> None:
        """Refuse values outside their range."""
        within(self, 1, inf, "views")
        within(self, 0, 1, "selection")
        one_of(self, "augmentation", "crop", "augmix")

    def view_policy(self) -> ViewPolicy | None:
        """Return how many views of which kind are made; none where the image is the only one."""
        return ViewPolicy(self.views, self.augmentation) if self.views > 1 else None

    def init(self, source: SourceModel, task: Task) -> State:
        """Return the unit class texts (K, D)."""
        return {"text": self.texts(source)}

    def texts(self, source: SourceModel) -> Tensor:
        """Return the unit class texts (K, D) of the cell's prompts.

        Raises:
            IncompatibleError: If the source model has no text side.
        """
        return text_side(source).prototypes()

    def rows(self, inputs: Inputs) -> Tensor:
        """Return the unit features (N, V, D) of the views that the method uses."""
        if self.views > 1:
            assert inputs.view_features is not None
            return F.normalize(inputs.view_features, dim=-1)
        assert inputs.features is not None
        return F.normalize(inputs.features, dim=-1).unsqueeze(1)


def text_scale(source: SourceModel) -> Tensor:
    """Return the factor of the cosines in the source model's logits."""
    assert source.text is not None
    return source.text.scale


def entropies(p: Tensor, eps: float = 0.0) -> Tensor:
    """Return ``-sum_c p_c ln(p_c + eps)``, in nats, of probabilities (..., K)."""
    return torch.special.entr(p).sum(-1) if eps == 0 else -(p * (p + eps).log()).sum(-1)


class Chosen(NamedTuple):
    """The confident views of each image.

    Attributes:
        rows: (N, k, D) features, by ascending entropy.
        logits: (N, k, K).
        entropy: (N, k) nats.
    """

    rows: Tensor
    logits: Tensor
    entropy: Tensor


def confident(rows: Tensor, logits: Tensor, share: float, eps: float = 0.0) -> Chosen:
    """Return the views of least entropy.

    Args:
        rows: (N, V, D).
        logits: (N, V, K).
        share: Of the views; see `least`.
        eps: Added inside the logarithm of the entropy.
    """
    entropy = entropies(logits.softmax(-1), eps)
    views = least(entropy, share)
    return Chosen(chosen_views(rows, views), chosen_views(logits, views), entropy.gather(1, views))


class Consensus(NamedTuple):
    """The joint scores of the chosen views of each image.

    Attributes:
        feature: (N, D) mean feature, not normalised again.
        logits: (N, K) mean logits.
        p: (N, K) mean probabilities.
    """

    feature: Tensor
    logits: Tensor
    p: Tensor


def consensus(rows: Tensor, logits: Tensor) -> Consensus:
    """Return the means over views of features (N, k, D), of logits (N, k, K) and of their softmax."""
    return Consensus(rows.mean(1), logits.mean(1), logits.softmax(-1).mean(1))
