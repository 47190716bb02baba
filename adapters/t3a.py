# SPDX-License-Identifier: Apache-2.0
"""T3A: class prototypes that collect the features of confident test images."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch.nn import functional as F

from tta_bench.errors import BadInputError
from tta_bench.losses import entropy
from tta_bench.method import ALL_PRECISIONS, Adapted, Card, Inputs, Method, SourceModel, State, Task


@dataclass(frozen=True)
class T3A(Method):
    """Replace the classifier by prototypes made of its rows and of confident test features.

    Each class keeps its ``keep`` supports of least entropy, the classifier's own row among the candidates;
    its prototype is the unit sum of its unit supports, and ``z = f . prototypes``. A batch enters before it is
    predicted.

    Source: Iwasawa & Matsuo, NeurIPS 2021, "Test-Time Classifier Adjustment Module", algorithm 1.
    Differs: -1 keeps every support; the reference then drops the worst of each class in every batch.

    Attributes:
        keep: Supports of each class; -1 for all.
        reference_quirk: With ``keep = -1``, drop the support of highest entropy of each class in every batch.
    """

    keep: int = 20
    reference_quirk: bool = False

    card: ClassVar[Card] = Card(
        paper="Iwasawa & Matsuo, NeurIPS 2021",
        title="Test-Time Classifier Adjustment Module for Model-Agnostic Domain Generalization",
        authors="Iwasawa, Yusuke and Matsuo, Yutaka",
        venue="Advances in Neural Information Processing Systems",
        year=2021,
        category="online",
        updates="state",
        predicts="after",
        fixed_shapes=False,
        grows=("supports", "labels", "entropies"),
        precision=ALL_PRECISIONS,
        parity="online/t3a",
        cost="1 forward",
        notes="No gradients; the logits have no bias and are not calibrated. Its state grows by the stream with -1.",
    )
    presets: ClassVar[dict[str, dict[str, Any]]] = {
        "domainbed": {"keep": 20},
        "all": {"keep": -1},
    }

    def __post_init__(self) -> None:
        """Refuse a number of supports that is neither positive nor -1."""
        if self.keep < 1 and self.keep != -1:
            raise BadInputError(f"keep must be 1 or more, or -1 for all supports, got {self.keep}")

    def init(self, source: SourceModel, task: Task) -> State:
        """Return the classifier's rows as supports (S, D), each with the class and entropy it gives itself."""
        rows = source.head_weight()
        with torch.no_grad():
            logits = source.head(rows)
        return {"supports": rows, "labels": logits.argmax(-1), "entropies": entropy(logits)}

    def adapt(self, source: SourceModel, state: State, inputs: Inputs) -> Adapted:
        """Return the supports with those of the batch, pruned, and the logits of the batch."""
        assert inputs.images is not None
        with torch.no_grad():
            seen = source.forward(inputs.images)
            found = {
                "supports": seen.features,
                "labels": seen.logits.argmax(-1),
                "entropies": entropy(seen.logits),
            }
            grown = {name: torch.cat([state[name], new]) for name, new in found.items()}
            pruned = self._pruned(grown, source.num_classes)
            belongs = F.one_hot(pruned["labels"], source.num_classes).to(seen.features.dtype)
            prototypes = F.normalize(F.normalize(pruned["supports"], dim=-1).T @ belongs, dim=0)
            return Adapted(pruned, seen.features @ prototypes)

    def _pruned(self, state: State, classes: int) -> State:
        """Return the supports by class, then by entropy, as many of each class as are kept."""
        order = state["entropies"].argsort(stable=True)
        order = order[state["labels"][order].argsort(stable=True)]
        labels = state["labels"][order]
        counts = labels.bincount(minlength=classes)
        rank = torch.arange(len(order), device=order.device) - (counts.cumsum(0) - counts)[labels]
        if self.keep > 0:
            order = order[rank < self.keep]
        elif self.reference_quirk:
            order = order[rank < counts[labels] - 1]
        return {name: value[order] for name, value in state.items()}
