# SPDX-License-Identifier: Apache-2.0
"""SHOT-IM: information maximisation over the feature extractor, the classifier being frozen."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor

from tta_bench.errors import BadInputError
from tta_bench.losses import diversity, entropy, pseudo_label_loss
from tta_bench.method import ALL_PRECISIONS, Adapted, Card, Inputs, SourceModel, State
from tta_bench.optim import Tensors, gradient

from ._descent import Descending


@dataclass(frozen=True)
class ShotIm(Descending):
    """Make predictions certain one by one and diverse as a whole through the feature extractor.

    ``loss = mean_i H_i + sum_c m_c ln(m_c + 1e-5) + theta * mean_{i: max p_i > beta} CE(argmax p_i, z_i)`` with
    the batch's mean prediction m; ``theta = 0`` is SHOT-IM, above 0 the online form of SHOT. All parameters
    but the classifier's move; BatchNorm layers normalise by their stored statistics. The logits are those
    before the (last) update.

    Source: Liang et al., ICML 2020, arXiv:2002.08546, eqs. 2 to 4; online as in Iwasawa & Matsuo, NeurIPS 2021.
    Differs: the offline method's labels by centroids of a whole epoch are another method; an empty set of
    confident samples adds 0.

    Attributes:
        theta: Weight of the pseudo-labels.
        beta: Confidence above which a pseudo-label counts.
        steps: Updates for each batch.
    """

    lr: float = 5e-5
    theta: float = 0.0
    beta: float = 0.9
    steps: int = 1

    card: ClassVar[Card] = Card(
        paper="arXiv:2002.08546",
        title="Do We Really Need to Access the Source Data? Source Hypothesis Transfer for Unsupervised Domain "
        "Adaptation",
        authors="Liang, Jian and Hu, Dapeng and Feng, Jiashi",
        venue="International Conference on Machine Learning",
        year=2020,
        category="online",
        updates="parameters",
        needs=frozenset({"gradients"}),
        predicts="before",
        vmappable=True,
        precision=ALL_PRECISIONS,
        idle=(("lr", 0.0),),
        parity="online/shot_im",
        cost="1 forward + 1 backward",
        notes="Diversity is taken over the batch: small or label-sorted batches hurt it.",
    )
    presets: ClassVar[dict[str, dict[str, Any]]] = {
        "domainbed": {"optimizer": "adam", "lr": 5e-5},
        "domainbed-shot": {"optimizer": "adam", "lr": 5e-5, "theta": 0.3, "beta": 0.9},
    }

    def __post_init__(self) -> None:
        """Refuse values outside their range."""
        super().__post_init__()
        if self.steps < 1 or not self.theta >= 0 or not self.beta >= 0:
            raise BadInputError(
                "steps must be 1 or more, theta and beta 0 or more, "
                f"got {self.steps}, {self.theta} and {self.beta}"
            )

    def tensors(self, source: SourceModel) -> Tensors:
        """Return all parameters but the classifier's."""
        head = source.weights(under="head")
        return {name: p for name, p in source.params.items() if name not in head}

    def adapt(self, source: SourceModel, state: State, inputs: Inputs) -> Adapted:
        """Return the state after the updates and the logits before the last of them."""
        images = inputs.images
        assert images is not None

        def loss(params: Tensors) -> tuple[Tensor, Tensor]:
            logits = source.logits(images, params)
            value = entropy(logits).mean() + diversity(logits)
            if self.theta:
                chosen = logits.softmax(-1).amax(-1) > self.beta
                value = value + self.theta * pseudo_label_loss(logits, chosen)
            return value, logits

        for _ in range(self.steps):
            grads, _, logits = gradient(loss, state["params"])
            state = self.moved(state, grads)
        return Adapted(state, logits)
