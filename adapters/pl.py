# SPDX-License-Identifier: Apache-2.0
"""PL: training on one's own confident predictions as if they were labels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from torch import Tensor

from tta_bench.errors import BadInputError
from tta_bench.losses import pseudo_label_loss
from tta_bench.method import ALL_PRECISIONS, Adapted, Card, Inputs, SourceModel, State
from tta_bench.optim import Tensors, gradient

from ._descent import Descending


@dataclass(frozen=True)
class Pl(Descending):
    """Train on confident predictions as if they were labels.

    ``loss = mean_{i: max p_i > beta} CE(argmax p_i, z_i)``; where no sample is confident nothing changes.
    BatchNorm layers normalise by their stored statistics. The logits are those before the (last) update.

    Source: Lee, ICML workshop 2013, "Pseudo-Label"; online as in Iwasawa & Matsuo, NeurIPS 2021.
    Differs: without a confident sample the reference still steps with its moments.

    Attributes:
        beta: Confidence above which a prediction counts as a label.
        trains: ``"all"`` parameters, or the ``"classifier"`` alone.
        steps: Updates for each batch.
        reference_quirk: Step with zero gradients where no sample is confident.
    """

    lr: float = 5e-5
    beta: float = 0.9
    trains: Literal["all", "classifier"] = "all"
    steps: int = 1
    reference_quirk: bool = False

    card: ClassVar[Card] = Card(
        paper="Lee, ICML Workshop 2013",
        title="Pseudo-Label: The Simple and Efficient Semi-Supervised Learning Method for Deep Neural Networks",
        authors="Lee, Dong-Hyun",
        venue="ICML Workshop on Challenges in Representation Learning",
        year=2013,
        category="online",
        updates="parameters",
        needs=frozenset({"gradients"}),
        predicts="before",
        precision=ALL_PRECISIONS,
        idle=(("lr", 0.0),),
        parity="online/pl",
        cost="1 forward + 1 backward",
        notes="Confident mistakes reinforce themselves.",
    )
    presets: ClassVar[dict[str, dict[str, Any]]] = {
        "domainbed": {"optimizer": "adam", "lr": 5e-5, "beta": 0.9},
        "domainbed-classifier": {"optimizer": "adam", "lr": 5e-5, "beta": 0.9, "trains": "classifier"},
    }

    def __post_init__(self) -> None:
        """Refuse values outside their range."""
        super().__post_init__()
        if self.trains not in ("all", "classifier"):
            raise BadInputError(f"trains must be 'all' or 'classifier', got {self.trains!r}")
        if self.steps < 1 or not self.beta >= 0:
            raise BadInputError(
                f"steps must be 1 or more and beta 0 or more, got {self.steps} and {self.beta}"
            )

    def tensors(self, source: SourceModel) -> Tensors:
        """Return all parameters, or those of the classifier."""
        return source.weights(under="head") if self.trains == "classifier" else dict(source.params)

    def adapt(self, source: SourceModel, state: State, inputs: Inputs) -> Adapted:
        """Return the state after the updates and the logits before the last of them."""
        images = inputs.images
        assert images is not None

        def loss(params: Tensors) -> tuple[Tensor, tuple[Tensor, bool]]:
            logits = source.logits(images, params)
            chosen = logits.detach().softmax(-1).amax(-1) > self.beta
            some = bool(chosen.any())
            return pseudo_label_loss(logits, chosen) if some else logits.new_zeros(()), (logits, some)

        for _ in range(self.steps):
            grads, _, (logits, some) = gradient(loss, state["params"])
            if some or self.reference_quirk:
                state = self.moved(state, grads)
        return Adapted(state, logits)
