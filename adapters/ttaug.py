# SPDX-License-Identifier: Apache-2.0
"""Test-time augmentation: the mean prediction over augmented views, without adaptation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from tta_bench.errors import BadInputError
from tta_bench.losses import mean_log_probabilities
from tta_bench.method import ALL_PRECISIONS, Adapted, Card, Inputs, Method, SourceModel, State, ViewPolicy


@dataclass(frozen=True)
class TTAug(Method):
    """Average the predictions over augmented views of each image and adapt nothing.

    ``p = mean_v softmax(z_v)``, view 0 being the image itself.

    Source: the augmentation baseline of MEMO, arXiv:2110.09506, section 4.
    Differs: nothing.

    Attributes:
        views: Views of each image.
        kind: ``"augmix"`` or ``"crop"``.
    """

    views: int = 32
    kind: Literal["augmix", "crop"] = "augmix"

    card: ClassVar[Card] = Card(
        paper="baseline",
        title="Test-time augmentation",
        category="episodic",
        updates="inference",
        views=ViewPolicy(32, "augmix"),
        output="probabilities",
        predicts="before",
        reset="image",
        independent=True,
        vmappable=True,
        chunk=16,
        precision=ALL_PRECISIONS,
        cost="32 forward with 32 views",
        notes="What the views alone are worth: compare methods that learn from views with it.",
    )
    presets: ClassVar[dict[str, dict[str, Any]]] = {
        "cifar10-c": {"views": 32, "kind": "augmix"},
        "imagenet-c": {"views": 64, "kind": "augmix"},
    }

    def __post_init__(self) -> None:
        """Refuse values outside their range."""
        if self.views < 1 or self.kind not in ("augmix", "crop"):
            raise BadInputError(
                f"views must be 1 or more and kind 'augmix' or 'crop', got {self.views} and {self.kind!r}"
            )

    def view_policy(self) -> ViewPolicy:
        """Return how many views of which kind are made."""
        return ViewPolicy(self.views, self.kind)

    def adapt(self, source: SourceModel, state: State, inputs: Inputs) -> Adapted:
        """Return the state unchanged."""
        return Adapted(state)

    def predict(self, source: SourceModel, state: State, inputs: Inputs) -> Tensor:
        """Return the mean probabilities (N, K) over the views."""
        views = inputs.views
        assert views is not None
        logits = torch.unflatten(source.logits(views.flatten(0, 1)), 0, views.shape[:2])
        return mean_log_probabilities(logits).exp()
