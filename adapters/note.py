# SPDX-License-Identifier: Apache-2.0
"""NOTE: instance-aware BatchNorm, and entropy minimisation on a prediction-balanced reservoir."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from tta_bench.errors import BadInputError
from tta_bench.method import ALL_PRECISIONS, Adapted, Card, Inputs, SourceModel, State
from tta_bench.norms import instance_aware
from tta_bench.optim import Tensors, gradient

from ._descent import Descending
from ._layers import stored_statistics
from ._memory import Item, Pool, empty, remember_by_chance


@dataclass(frozen=True)
class Note(Descending):
    """Correct BatchNorm instance by instance, and learn from a memory of all predicted classes.

    With the base statistics m, v of a layer and those of one instance, ``mu = m + S(m_i - m; k s_m)`` and
    ``var = relu(v + S(v_i - v; k s_v))``; S is soft shrinkage, ``s_m = sqrt(v / L)``,
    ``s_v = v sqrt(2 / (L - 1))``, L the number of positions. The base statistics are the stored ones in a
    prediction, those of the memory in an update. Images are predicted one by one and enter the memory: while it
    is full an image of a rare class replaces one of a largest class, any other one replaces an image of its own
    class with probability m_c / n_c (remembered and seen so far). After every ``every`` images the affine
    tensors take a step on the mean of ``-p ln p`` over memory and classes, and the stored statistics move by
    ``momentum_stats``.

    Source: Gong et al., NeurIPS 2022, arXiv:2208.05117, eqs. 3 to 7 and algorithm 1.
    Differs: layers are converted after training, where the paper trains with them; the whole memory is one
    batch; a reset clears everything. Images between two updates are predicted at once, which gives the same.

    Attributes:
        capacity: Images in the memory.
        every: Images between two updates.
        k: Deviations within which an instance counts as typical.
        momentum_stats: Share of the memory in the stored statistics at each update.
    """

    lr: float = 1e-4
    capacity: int = 64
    every: int = 64
    k: float = 4.0
    momentum_stats: float = 0.01

    card: ClassVar[Card] = Card(
        paper="arXiv:2208.05117",
        title="NOTE: Robust Continual Test-time Adaptation Against Temporal Correlation",
        authors="Gong, Taesik and Jeong, Jongheon and Kim, Taewon and Kim, Yewon and Shin, Jinwoo and Lee, "
        "Sung-Ju",
        venue="Advances in Neural Information Processing Systems",
        year=2022,
        category="online",
        updates="parameters",
        needs=frozenset({"batchnorm", "gradients"}),
        predicts="before",
        precision=ALL_PRECISIONS,
        idle=(("lr", 0.0), ("momentum_stats", 0.0), ("k", 1e6)),
        parity="online/note",
        cost="1 forward; every 64 images 1 forward + 1 backward over the memory",
        notes="Remembers test images. Made for source models trained with its layers; converted ones lose some.",
    )
    presets: ClassVar[dict[str, dict[str, Any]]] = {
        "cifar10-c": {"lr": 1e-4, "k": 4.0},
        "cifar100-c": {"lr": 1e-4, "k": 4.0},
        "imagenet-c": {"lr": 1e-4, "k": 4.0},
    }

    def __post_init__(self) -> None:
        """Refuse values outside their range."""
        super().__post_init__()
        if self.capacity < 1 or self.every < 1:
            raise BadInputError(f"capacity and every must be 1 or more, got {self.capacity} and {self.every}")
        if not 0 <= self.momentum_stats <= 1 or not self.k >= 0:
            raise BadInputError(
                f"momentum_stats must lie in [0, 1] and k be 0 or more, got {self.momentum_stats} and {self.k}"
            )

    def tensors(self, source: SourceModel) -> Tensors:
        """Return the affine tensors of the BatchNorm layers."""
        return source.normalisation(("batch",))

    def initial_state(self, source: SourceModel) -> State:
        """Return the first state: stored statistics of the source model, nothing remembered or seen."""
        return {
            **super().initial_state(source),
            "stats": stored_statistics(source),
            "memory": empty(source, self.capacity),
            "seen": torch.zeros(source.num_classes, dtype=torch.int64, device=source.device),
        }

    def draw(self, source: SourceModel, n: int, generator: torch.Generator) -> Tensor:
        """Return three uniform numbers for each image: which class, which of its images, and whether at all."""
        return torch.rand(n, 3, generator=generator, device=generator.device)

    def adapt(self, source: SourceModel, state: State, inputs: Inputs) -> Adapted:
        """Return the state after the updates that fall due, and each image's logits from before it was seen."""
        images = inputs.images
        assert images is not None
        pool, seen, chances = Pool(state["memory"], images), state["seen"].tolist(), inputs.draws.tolist()
        parts, start = [], 0
        while start < len(images):
            stop = min(len(images), start + self.every - sum(seen) % self.every)
            with torch.no_grad():
                tensors = {**state["params"], **state["stats"]}
                parts.append(source.logits(images[start:stop], tensors, norm=instance_aware(self.k)))
            for row, label in enumerate(parts[-1].argmax(-1).tolist(), start):
                seen[label] += 1
                remember_by_chance(pool, Item(self.capacity + row, label), seen[label], chances[row])
            if sum(seen) % self.every == 0:
                state = self._updated(source, state, pool)
            start = stop
        counts = torch.tensor(seen, device=source.device)
        return Adapted({**state, "memory": pool.memory(), "seen": counts}, torch.cat(parts))

    def _updated(self, source: SourceModel, state: State, pool: Pool) -> State:
        """Return the state after one step on the memory."""
        images = pool.taken(pool.by_class())
        rule = instance_aware(self.k, self.momentum_stats)

        def loss(params: Tensors) -> tuple[Tensor, Tensors]:
            made = source.forward(images, {**params, **state["stats"]}, norm=rule)
            p = made.logits.softmax(-1)
            return -(p * (p + 1e-6).log()).mean(), made.stats

        grads, _, stats = gradient(loss, state["params"])
        return {**self.moved(state, grads), "stats": {**state["stats"], **stats}}
