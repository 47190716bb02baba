# SPDX-License-Identifier: Apache-2.0
"""RPL: self-training on pseudo-labels with a loss that is robust to wrong ones."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor

from tta_bench.errors import BadInputError
from tta_bench.losses import robust_pseudo_label_loss
from tta_bench.method import ALL_PRECISIONS, Adapted, Card, Inputs, SourceModel, State
from tta_bench.norms import batch
from tta_bench.optim import Tensors, gradient

from ._descent import Descending


@dataclass(frozen=True)
class Rpl(Descending):
    """Train the norm layers on hard pseudo-labels with the generalised cross-entropy.

    ``loss = mean_i (1 - p_i[y_i]^q) / q`` with ``y_i = argmax p_i``. The logits are those before the update.

    Source: Rusak et al., TMLR 2022, arXiv:2104.12928, section 3.
    Differs: plain instead of Nesterov momentum in the presets, as the authors published it.

    Attributes:
        q: Exponent, in (0, 1].
    """

    q: float = 0.8

    card: ClassVar[Card] = Card(
        paper="arXiv:2104.12928",
        title="If your data distribution shifts, use self-learning",
        authors="Rusak, Evgenia and Schneider, Steffen and Pachitariu, George and Eck, Luisa and Gehler, "
        "Peter and Bringmann, Oliver and Brendel, Wieland and Bethge, Matthias",
        venue="Transactions on Machine Learning Research",
        year=2022,
        category="online",
        updates="parameters",
        needs=frozenset({"gradients"}),
        predicts="before",
        vmappable=True,
        precision=ALL_PRECISIONS,
        parity="online/rpl",
        cost="1 forward + 1 backward",
        notes="No threshold: every sample counts.",
    )
    presets: ClassVar[dict[str, dict[str, Any]]] = {
        "cifar10-c": {"optimizer": "adam", "lr": 1e-3},
        "cifar100-c": {"optimizer": "adam", "lr": 1e-3},
        "imagenet-c": {"optimizer": "sgd", "lr": 5e-4, "momentum": 0.9},
    }

    def __post_init__(self) -> None:
        """Refuse values outside their range."""
        super().__post_init__()
        if not 0 < self.q <= 1:
            raise BadInputError(f"q must lie in (0, 1], got {self.q}")

    def adapt(self, source: SourceModel, state: State, inputs: Inputs) -> Adapted:
        """Return the state after one update and the logits before it."""
        images = inputs.images
        assert images is not None

        def loss(params: Tensors) -> tuple[Tensor, Tensor]:
            logits = source.logits(images, params, norm=batch())
            return robust_pseudo_label_loss(logits, self.q).mean(), logits

        grads, _, logits = gradient(loss, state["params"])
        return Adapted(self.moved(state, grads), logits)
