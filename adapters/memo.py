# SPDX-License-Identifier: Apache-2.0
"""MEMO: one step on the entropy of the mean prediction over augmented views of a single image."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from tta_bench.errors import BadInputError
from tta_bench.losses import marginal_entropy
from tta_bench.method import ALL_PRECISIONS, Adapted, Card, Inputs, SourceModel, State, ViewPolicy
from tta_bench.norms import blend
from tta_bench.optim import Optimizer, Tensors, gradient

from ._descent import Descending


@dataclass(frozen=True)
class Memo(Descending):
    """Make the mean prediction over augmented views of one image certain, then predict the image.

    ``loss = H(mean_v softmax(z_v))``, one step from the source model for each image; the prediction is a
    forward pass of the image itself after it. BatchNorm layers normalise by
    ``(1 - alpha) * stored + alpha * batch`` (unbiased variance, no gradient through it), where the batch is
    the views in the step and the one image in the prediction.

    Source: Zhang et al., NeurIPS 2022, arXiv:2110.09506, eq. 2 and algorithm 1.
    Differs: the optimiser restarts with every image; view 0 is the image itself; over several images at
    once (reset other than ``image``) each has a mean prediction of its own.

    Attributes:
        views: Views of each image.
        alpha: Share of the batch in the BatchNorm statistics, in [0, 1].
    """

    lr: float = 5e-3
    optimizer: Optimizer = "sgd"
    momentum: float = 0.0
    views: int = 32
    alpha: float = 1 / 17

    card: ClassVar[Card] = Card(
        paper="arXiv:2110.09506",
        title="MEMO: Test Time Robustness via Adaptation and Augmentation",
        authors="Zhang, Marvin and Levine, Sergey and Finn, Chelsea",
        venue="Advances in Neural Information Processing Systems",
        year=2022,
        category="episodic",
        updates="parameters",
        needs=frozenset({"gradients"}),
        views=ViewPolicy(32, "augmix"),
        predicts="after",
        reset="image",
        vmappable=True,
        chunk=8,
        precision=ALL_PRECISIONS,
        idle=(("lr", 0.0), ("alpha", 0.0)),
        parity="online/memo",
        cost="33 forward + 32 backward with 32 views",
        notes="Episodic: slow, and independent of order and batch size.",
    )
    presets: ClassVar[dict[str, dict[str, Any]]] = {
        "cifar10-c": {"optimizer": "sgd", "lr": 5e-3, "views": 32},
        "imagenet-c": {"optimizer": "sgd", "lr": 2.5e-4, "views": 64, "alpha": 1 / 17},
        "imagenet-c-rvt": {"optimizer": "adamw", "lr": 1e-5, "weight_decay": 0.01, "views": 64},
    }

    def __post_init__(self) -> None:
        """Refuse values outside their range."""
        super().__post_init__()
        if self.views < 1 or not 0 <= self.alpha <= 1:
            raise BadInputError(
                f"views must be 1 or more and alpha lie in [0, 1], got {self.views} and {self.alpha}"
            )

    def view_policy(self) -> ViewPolicy:
        """Return how many views of which kind are made."""
        return ViewPolicy(self.views, "augmix")

    def tensors(self, source: SourceModel) -> Tensors:
        """Return every weight and bias."""
        return source.weights()

    def adapt(self, source: SourceModel, state: State, inputs: Inputs) -> Adapted:
        """Return the state after one step on the views."""
        views = inputs.views
        assert views is not None

        def loss(params: Tensors) -> tuple[Tensor, Tensor]:
            flat = source.logits(views.flatten(0, 1), params, norm=blend(self.alpha, detach=True))
            logits = torch.unflatten(flat, 0, views.shape[:2])
            return marginal_entropy(logits).mean(), logits

        grads, _, _ = gradient(loss, state["params"])
        return Adapted(self.moved(state, grads))

    def predict(self, source: SourceModel, state: State, inputs: Inputs) -> Tensor:
        """Return the logits (N, K) of the images, each normalised by itself."""
        images = inputs.images
        assert images is not None
        return source.logits(images, state["params"], norm=blend(self.alpha))
