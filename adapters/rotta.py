# SPDX-License-Identifier: Apache-2.0
"""RoTTA: robust BatchNorm statistics, a class-balanced memory and an averaged teacher."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar

import torch
from torch import Tensor

from tta_bench.augment import Draws, Jitter, augment, draw_jitter
from tta_bench.errors import BadInputError
from tta_bench.losses import soft_cross_entropy
from tta_bench.method import ALL_PRECISIONS, Adapted, Card, Inputs, SourceModel, State
from tta_bench.norms import blend
from tta_bench.optim import Tensors, ema, gradient

from ._descent import Descending
from ._layers import stored_statistics
from ._memory import Item, Pool, empty, remember_by_score, undeserving


@dataclass(frozen=True)
class Rotta(Descending):
    """Learn from a teacher on a memory that holds all classes, recent images and certain ones.

    The teacher predicts each batch with its stored statistics. Every image enters the memory if a place of its
    class, or of the largest classes, is free or held by one with a larger score
    ``time_weight / (1 + exp(-age / M)) + uncertainty_weight u / ln K``. After every ``every`` images the
    student takes a step on ``mean_i w_i CE(softmax z_teacher(x_i), z_student(A(x_i)))`` over the memory,
    ``w_i = exp(-a_i) / (1 + exp(-a_i))``, ``a_i = age_i / M``; the teacher becomes
    ``(1 - nu) teacher + nu student``. In this step BatchNorm layers normalise by
    ``(1 - alpha) stored + alpha batch`` and store that, in each of the two networks by itself.

    Source: Yuan et al., CVPR 2023, arXiv:2303.13899, eqs. 2 to 9.
    Differs: layer and group norms are adapted too where there are any; the augmentation is CoTTA's, drawn
    once for the whole memory; a reset clears the memory.

    Attributes:
        capacity: Images M in the memory.
        every: Images between two updates.
        alpha: Share of the batch in the stored statistics.
        nu: Share of the student in the teacher at each update.
        time_weight: Weight of the age in the score.
        uncertainty_weight: Weight of the entropy u in the score.
    """

    capacity: int = 64
    every: int = 64
    alpha: float = 0.05
    nu: float = 0.001
    time_weight: float = 1.0
    uncertainty_weight: float = 1.0

    card: ClassVar[Card] = Card(
        paper="arXiv:2303.13899",
        title="Robust Test-Time Adaptation in Dynamic Scenarios",
        authors="Yuan, Longhui and Xie, Binhui and Li, Shuang",
        venue="Conference on Computer Vision and Pattern Recognition",
        year=2023,
        category="online",
        updates="parameters",
        needs=frozenset({"gradients"}),
        predicts="before",
        precision=ALL_PRECISIONS,
        idle=(("lr", 0.0), ("alpha", 0.0)),
        parity="online/rotta",
        cost="1 forward; every 64 images 2 forward + 1 backward over the memory",
        notes="Remembers test images. Nothing changes before `every` images were seen.",
    )
    presets: ClassVar[dict[str, dict[str, Any]]] = {
        "cifar10-c": {"lr": 1e-3},
        "cifar100-c": {"lr": 1e-3},
        "imagenet-c": {"lr": 1e-3},
    }

    def __post_init__(self) -> None:
        """Refuse values outside their range."""
        super().__post_init__()
        if self.capacity < 1 or self.every < 1:
            raise BadInputError(f"capacity and every must be 1 or more, got {self.capacity} and {self.every}")
        if not (0 <= self.alpha <= 1 and 0 <= self.nu <= 1):
            raise BadInputError(f"alpha and nu must lie in [0, 1], got {self.alpha} and {self.nu}")
        if not (self.time_weight >= 0 and self.uncertainty_weight >= 0):
            raise BadInputError(
                "time_weight and uncertainty_weight must be 0 or more, "
                f"got {self.time_weight} and {self.uncertainty_weight}"
            )

    def initial_state(self, source: SourceModel) -> State:
        """Return the first state: student and teacher are the source model, the memory is empty."""
        state, stats = super().initial_state(source), stored_statistics(source)
        return {
            **state, "stats": stats, "teacher": dict(state["params"]), "teacher_stats": dict(stats),
            "memory": empty(source, self.capacity),
            "seen": torch.zeros((), dtype=torch.int64, device=source.device),
        }  # fmt: skip

    def draw(self, source: SourceModel, n: int, generator: torch.Generator) -> Draws:
        """Return the parameters of one augmentation for each update that n images can bring."""
        rows = (n + self.every - 1) // self.every
        draws = draw_jitter(rows, source.image_shape, generator, Jitter())
        return {name: tensor[None] for name, tensor in draws.items()}

    def adapt(self, source: SourceModel, state: State, inputs: Inputs) -> Adapted:
        """Return the state after the updates that fall due, and the teacher's logits from before them."""
        images = inputs.images
        assert images is not None
        with torch.no_grad():
            logits = source.logits(images, {**state["teacher"], **state["teacher_stats"]})
        p = logits.softmax(-1)
        uncertain, labels = -(p * (p + 1e-6).log()).sum(-1), logits.argmax(-1)
        pool, seen, updates = Pool(state["memory"], images), int(state["seen"]), 0
        score = partial(
            undeserving, capacity=self.capacity, classes=source.num_classes, time_weight=self.time_weight,
            uncertainty_weight=self.uncertainty_weight,
        )  # fmt: skip
        for row, (label, u) in enumerate(zip(labels.tolist(), uncertain.tolist(), strict=True)):
            remember_by_score(pool, Item(self.capacity + row, label, u), source.num_classes, score)
            if (seen + row + 1) % self.every == 0:
                draws = {name: t[0, updates : updates + 1] for name, t in inputs.draws.items()}
                state = self._updated(source, state, pool, draws)
                updates += 1
        return Adapted({**state, "memory": pool.memory(), "seen": state["seen"] + len(images)}, logits)

    def _updated(self, source: SourceModel, state: State, pool: Pool, draws: Draws) -> State:
        """Return the state after one step on the memory."""
        items = pool.by_class()
        images = pool.taken(items)
        rule = blend(self.alpha, unbiased=False, store=True)
        age = images.new_tensor([item.age / self.capacity for item in items])
        with torch.no_grad():
            taught = source.forward(images, {**state["teacher"], **state["teacher_stats"]}, norm=rule)

        def loss(params: Tensors) -> tuple[Tensor, Tensors]:
            seen = source.forward(augment(images, draws), {**params, **state["stats"]}, norm=rule)
            each = soft_cross_entropy(taught.logits, seen.logits)
            return (torch.sigmoid(-age) * each).mean(), seen.stats

        grads, _, stats = gradient(loss, state["params"])
        after = self.moved(state, grads)
        teacher = ema(state["teacher"], after["params"], keep=1 - self.nu)
        return {
            **after, "stats": {**state["stats"], **stats}, "teacher": teacher,
            "teacher_stats": {**state["teacher_stats"], **taught.stats},
        }  # fmt: skip
