# SPDX-License-Identifier: Apache-2.0
"""EATA: ETA with a penalty on tensors that matter for the source images."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from tta_bench.errors import BadInputError
from tta_bench.losses import pseudo_label_loss
from tta_bench.method import ALL_PRECISIONS, Card, SourceModel, State, Task
from tta_bench.norms import batch
from tta_bench.optim import Tensors, gradient

from ._reliable import PRESETS, Reliable
from ._source_images import source_batches, statistics_note


@dataclass(frozen=True)
class Eata(Reliable):
    """Minimise entropy as ETA does and hold what matters for the source images near its start.

    ``loss = ETA's + alpha * sum_j F_j (theta_j - theta0_j)^2``. F is the mean over batches of unlabelled source
    images of the squared gradient of the batch's mean cross-entropy with its own predictions, taken before
    the first test image with the statistics of those batches.

    Source: Niu et al., ICML 2022, arXiv:2204.02610, eqs. 3 to 8.
    Differs: a reset also forgets the mean prediction; F comes from the dataset's source split.

    Attributes:
        margin: Entropy below which a sample is reliable, as a share of ln K.
        redundancy: Cosine with the mean prediction above which a sample is redundant.
        alpha: Weight of the penalty.
        samples: Source images for F; all of them if there are fewer.
    """

    alpha: float = 1.0
    samples: int = 2000

    card: ClassVar[Card] = Card(
        paper="arXiv:2204.02610",
        title="Efficient Test-Time Model Adaptation without Forgetting",
        authors="Niu, Shuaicheng and Wu, Jiaxiang and Zhang, Yifan and Chen, Yaofo and Zheng, Shijian and "
        "Zhao, Peilin and Tan, Mingkui",
        venue="International Conference on Machine Learning",
        year=2022,
        category="online",
        updates="parameters",
        needs=frozenset({"gradients", "source_images"}),
        predicts="before",
        precision=ALL_PRECISIONS,
        parity="online/eata",
        cost="1 forward + 1 backward; before the stream the same over the source images",
        notes="Reads source images once, before the stream, without their labels.",
    )
    presets: ClassVar[dict[str, dict[str, Any]]] = {
        name: {**values, "alpha": 2000.0 if name == "imagenet-c" else 1.0} for name, values in PRESETS.items()
    }

    def __post_init__(self) -> None:
        """Refuse values outside their range."""
        super().__post_init__()
        if not self.alpha >= 0 or self.samples < 1:
            raise BadInputError(
                f"alpha must be 0 or more and samples 1 or more, got {self.alpha} and {self.samples}"
            )

    def init_reads(self, available: int) -> int:
        """Return how many source images are read before the stream."""
        return min(self.samples, available)

    def init(self, source: SourceModel, task: Task) -> State:
        """Return the first state with the importance F of each adapted tensor's entries."""
        state = self.initial_state(source)
        return {**state, "fisher": self._importance(source, task, state["params"])}

    def penalty(self, source: SourceModel, state: State, params: Tensors) -> Tensor:
        """Return the weighted squared distance from the source model's tensors."""
        away = (state["fisher"][name] * (p - source.params[name]).square() for name, p in params.items())
        return self.alpha * torch.stack([each.sum() for each in away]).sum()

    def notes(self, source: SourceModel) -> dict[str, str]:
        """Return which source images F comes from."""
        return statistics_note("importance of the adapted tensors", self.samples)

    def _importance(self, source: SourceModel, task: Task, params: Tensors) -> Tensors:
        """Return the mean over batches of squared gradients, by tensor."""
        total = {name: torch.zeros_like(p) for name, p in params.items()}
        batches = 0
        for images, _ in source_batches(task, self.samples):
            batches += 1

            def loss(tensors: Tensors, images: Tensor = images) -> tuple[Tensor, None]:
                logits = source.logits(images, tensors, norm=batch())
                return pseudo_label_loss(logits, torch.ones_like(logits[:, 0], dtype=torch.bool)), None

            grads, _, _ = gradient(loss, params)
            total = {name: total[name] + grads[name].square() for name in params}
        return {name: value / batches for name, value in total.items()}
