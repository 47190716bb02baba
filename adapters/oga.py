# SPDX-License-Identifier: Apache-2.0
"""OGA: Gaussians of the most confident test features, with the zero-shot probabilities as prior."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from math import inf
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from tta_bench.method import ALL_PRECISIONS, Card, Inputs, SourceModel, State, Task
from tta_bench.optim import Tensors

from ._bank import Bank, empty, over_the_worst
from ._gaussian import discriminants
from ._matching import NEEDS, Matching, entropies, text_scale
from ._ranges import one_of, positive, within


@dataclass(frozen=True)
class Oga(Matching):
    """Combine zero-shot probabilities with the likelihood under Gaussians of remembered features.

    ``p ~ softmax(s x.T) softmax(tau g)`` with ``g_c = -(x - m_c).P (x - m_c) / 2``. Each class remembers its features
    of least entropy; m is their mean once there are two, else the class text, and P the inverse of the covariance that
    all classes share: a ridge estimate while few are remembered, the pseudo-inverse afterwards. A batch is remembered
    before it is predicted.

    Source: Fuchs et al., arXiv:2501.04352, section 3.
    Differs: a mean is over the features that are remembered; the reference divides by the places that there are
    (``over_capacity``), which draws the mean towards 0.

    Attributes:
        memory: Features of each class.
        tau: Temperature of the likelihood.
        covariance: ``"ridge"``, ``"pseudo-inverse"``, or ``"both"``: the first while there are at most 4 D features.
        unit_means: Scale the means to unit length.
        over_capacity: Divide the sum of the features by ``memory``.
        entropy_eps: Added inside the logarithm of the entropy.
    """

    memory: int = 8
    tau: float = 0.05
    covariance: Literal["ridge", "pseudo-inverse", "both"] = "both"
    unit_means: bool = False
    over_capacity: bool = False
    entropy_eps: float = 1e-9

    card: ClassVar[Card] = Card(
        paper="arXiv:2501.04352",
        title="Online Gaussian Test-Time Adaptation of Vision-Language Models",
        authors="Fuchs, Cl{\\'e}ment and Zanella, Maxime and De Vleeschouwer, Christophe",
        venue="arXiv",
        year=2025,
        category="online",
        updates="state",
        inputs="features",
        needs=NEEDS,
        output="probabilities",
        predicts="after",
        model="pocket-clip",
        precision=ALL_PRECISIONS,
        idle=(("tau", 0.0),),
        parity="vlm/oga",
        reference_licence="MIT",
        cost="1 forward + the pseudo-inverse of a D x D matrix",
        notes="Online and without gradients; depends on the order, so its authors report the mean of the worst tenth "
        "of 100 orders.",
    )
    presets: ClassVar[dict[str, dict[str, Any]]] = {
        "fuchs-2025": {"memory": 8, "tau": 0.05, "over_capacity": True},
        "ttabc": {"memory": 8, "tau": 0.05, "over_capacity": True, "entropy_eps": 1e-6},
    }
    scoring: ClassVar[frozenset[str]] = frozenset({"tau"})

    def __post_init__(self) -> None:
        """Refuse values outside their range."""
        super().__post_init__()
        positive(self, "memory")
        within(self, 0, inf, "tau", "entropy_eps")
        one_of(self, "covariance", "ridge", "pseudo-inverse", "both")
        within(self, 1, 1, "views")

    def init(self, source: SourceModel, task: Task) -> State:
        """Return class texts and means (K, D), the precision (D, D) and an empty memory."""
        text = self.texts(source)
        classes, dim = text.shape
        identity = torch.eye(dim, dtype=text.dtype, device=text.device)
        memory = empty(classes, self.memory, text, keys=dim)
        return {"text": text, "means": text, "precision": dim * identity, "memory": memory}

    def observe(self, source: SourceModel, state: State, inputs: Inputs) -> tuple[State, dict[str, Tensor]]:
        """Return memory and Gaussians with the batch in them, and what both models say of it."""
        x = self.rows(inputs)[:, 0]
        logits = text_scale(source) * x @ state["text"].T
        entropy = entropies(logits.softmax(-1), self.entropy_eps)
        bank, least = Bank(state["memory"], len(x)), math.log(logits.shape[-1])
        stored = []
        for image, (label, h) in enumerate(zip(logits.argmax(-1).tolist(), entropy.tolist(), strict=True)):
            stored.append(h < least and bank.admit(image, label, h, over_the_worst))
        if bank.changed:
            memory = bank.after(keys=x, entropy=entropy)
            means = self._means(memory, state["means"])
            state = {
                **state,
                "memory": memory,
                "means": means,
                "precision": self._precision(memory, means, state),
            }
        density = discriminants(x, state["means"], state["precision"])
        common = 0.5 * ((x @ state["precision"]) * x).sum(-1, keepdim=True)
        entered = torch.tensor(stored, device=x.device)
        return state, {"logits": logits, "log_density": density - common, "stored": entered}

    def _means(self, memory: Mapping[str, Tensor], before: Tensor) -> Tensor:
        """Return the means (K, D): of the remembered features where there are two or more, else those from before."""
        count = memory["count"].unsqueeze(-1)
        found = memory["keys"].sum(1) / (self.memory if self.over_capacity else count.clamp(min=1))
        return torch.where(count >= 2, F.normalize(found, dim=-1) if self.unit_means else found, before)

    def _precision(self, memory: Mapping[str, Tensor], means: Tensor, state: Tensors) -> Tensor:
        """Return the precision (D, D) of the remembered features around their means."""
        if int(memory["count"].max()) <= 2:
            return state["precision"]
        used = torch.arange(self.memory, device=means.device) < memory["count"].unsqueeze(-1)
        apart = (memory["keys"] - means.unsqueeze(1))[used]
        apart = apart - apart.mean(0)
        total, (count, dim) = apart.T @ apart, apart.shape
        covariance, factor = total / (count - 1), 1
        if self.covariance == "ridge" or (self.covariance == "both" and count <= 4 * dim):
            identity = torch.eye(dim, dtype=total.dtype, device=total.device)
            covariance, factor = total + covariance.trace() * identity, dim
        inverse: Tensor = torch.linalg.pinv(covariance, hermitian=True)
        return factor * inverse

    def score(self, source: SourceModel, evidence: Mapping[str, Tensor]) -> Tensor:
        """Return the probabilities (N, K)."""
        return (evidence["logits"] + self.tau * evidence["log_density"]).softmax(-1)
