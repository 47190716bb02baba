# SPDX-License-Identifier: Apache-2.0
"""PeTTA: a mean teacher that holds on to the source model the more, the further its features have drifted."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from tta_bench.augment import Draws, Jitter, augment, draw_jitter
from tta_bench.errors import BadInputError
from tta_bench.losses import soft_cross_entropy, symmetric_cross_entropy
from tta_bench.method import ALL_PRECISIONS, Adapted, Card, Inputs, SourceModel, State, Task
from tta_bench.norms import blend
from tta_bench.optim import Tensors, ema, gradient, widest

from ._descent import Descending
from ._layers import stored_statistics
from ._memory import Item, Pool, empty, remember_by_score, undeserving
from ._source_images import source_batches, statistics_note

KEEP = 0.95
REGULARISERS, LOSSES = ("cosine", "l2", "none"), ("sce", "ce")


@dataclass(frozen=True)
class Petta(Descending):
    """Learn from a teacher on a class-balanced memory, as much as the teacher's features allow.

    The teacher predicts each batch; its images enter RoTTA's memory X. Then one step of the student on
    ``loss = L + lam R + anchor mean CE(a(X), s(A(X)))``: L compares the teacher on X with the student on X and on its
    augmentation A(X), R is the distance of the adapted tensors from the source model's, and a is the source model with
    statistics of its own. ``gamma = 1 - exp(-mean (g_c - mu_c)^2 / (s_c^2 + 1e-6))`` over the classes c of the batch
    tells how far the teacher's prototypes g_c are from the source's; ``lam = gamma lambda_0``, and the teacher becomes
    ``(1 - alpha) teacher + alpha student`` with ``alpha = (1 - gamma) alpha_0``. Then ``g_c = 0.95 g_c + 0.05 mean f``.

    Source: Hoang et al., NeurIPS 2024, arXiv:2311.18193, section 4.
    Differs: classes with fewer than two source images, whose variance is unknown, say nothing of the drift, where the
    published code turns to NaN; the augmentation is CoTTA's, drawn once for the memory; a reset clears everything.

    Attributes:
        capacity: Images in the memory.
        alpha_bn: Share of the batch in the stored statistics.
        alpha_0: Largest share of the student in the teacher at each update.
        lambda_0: Largest weight of the distance from the source model.
        anchor: Weight of the agreement with the source model's predictions.
        adaptive_lambda: Whether the weight follows gamma.
        adaptive_alpha: Whether the share follows gamma.
        regulariser: Distance R: ``cosine``, ``l2`` or ``none``.
        loss: ``sce``, symmetric on both views; ``ce``, on the augmented view alone.
        time_weight: Weight of the age in the memory's score.
        uncertainty_weight: Weight of the entropy in the memory's score.
        samples: Source images for the class moments; all of them if there are fewer.
    """

    capacity: int = 64
    alpha_bn: float = 0.05
    alpha_0: float = 0.001
    lambda_0: float = 10.0
    anchor: float = 1.0
    adaptive_lambda: bool = True
    adaptive_alpha: bool = True
    regulariser: Literal["cosine", "l2", "none"] = "cosine"
    loss: Literal["sce", "ce"] = "sce"
    time_weight: float = 1.0
    uncertainty_weight: float = 1.0
    samples: int = 50000

    card: ClassVar[Card] = Card(
        paper="arXiv:2311.18193",
        title="Persistent Test-time Adaptation in Recurring Testing Scenarios",
        authors="Hoang, Trung-Hieu and Vo, Duc Minh and Do, Minh N.",
        venue="Advances in Neural Information Processing Systems",
        year=2024,
        category="online",
        updates="parameters",
        needs=frozenset({"batchnorm", "gradients", "source_images"}),
        predicts="before",
        precision=ALL_PRECISIONS,
        idle=(("lr", 0.0), ("alpha_bn", 0.0)),
        parity="online/petta",
        cost="5 forward + 2 backward, all but 1 forward over the memory; before the stream 1 forward over the source "
        "images",
        reference_licence="none stated",
        notes="Remembers test images. Reads source images once, before the stream, without their labels.",
    )
    presets: ClassVar[dict[str, dict[str, Any]]] = {
        "cifar10-c": {"loss": "sce", "lambda_0": 10.0},
        "cifar100-c": {"loss": "sce", "lambda_0": 10.0},
        "imagenet-c": {"loss": "ce", "lambda_0": 10.0},
        "domainnet126": {"loss": "ce", "lambda_0": 1.0},
        "pocket": {"samples": 512},
    }

    def __post_init__(self) -> None:
        """Refuse values outside their range."""
        super().__post_init__()
        if self.capacity < 1 or self.samples < 1:
            raise BadInputError(
                f"capacity and samples must be 1 or more, got {self.capacity} and {self.samples}"
            )
        for name in ("alpha_bn", "alpha_0"):
            if not 0 <= getattr(self, name) <= 1:
                raise BadInputError(f"{name} must lie in [0, 1], got {getattr(self, name)}")
        for name in ("lambda_0", "anchor", "time_weight", "uncertainty_weight"):
            if not getattr(self, name) >= 0:
                raise BadInputError(f"{name} must be 0 or more, got {getattr(self, name)}")
        if self.regulariser not in REGULARISERS or self.loss not in LOSSES:
            raise BadInputError(
                f"regulariser must be one of {', '.join(REGULARISERS)} and loss one of {', '.join(LOSSES)}, got "
                f"{self.regulariser!r} and {self.loss!r}"
            )

    def tensors(self, source: SourceModel) -> Tensors:
        """Return the affine tensors of the BatchNorm layers."""
        return source.normalisation(("batch",))

    def notes(self, source: SourceModel) -> dict[str, str]:
        """Return which source images the class moments come from."""
        return statistics_note("mean and variance of the features of each predicted class", self.samples)

    def init_reads(self, available: int) -> int:
        """Return how many source images are read before the stream."""
        return min(self.samples, available)

    def init(self, source: SourceModel, task: Task) -> State:
        """Return three copies of the source model, an empty memory, and the class moments of the source features."""
        state, stats = self.initial_state(source), stored_statistics(source)
        moments = self._class_moments(source, task)
        return {
            **state, **moments, "prototypes": moments["source_mean"].clone(), "teacher": dict(state["params"]),
            "stats": stats, "teacher_stats": dict(stats), "anchor_stats": dict(stats),
            "memory": empty(source, self.capacity),
        }  # fmt: skip

    def draw(self, source: SourceModel, n: int, generator: torch.Generator) -> Draws:
        """Return the parameters of one augmentation for the whole memory."""
        return draw_jitter(1, source.image_shape, generator, Jitter())

    def adapt(self, source: SourceModel, state: State, inputs: Inputs) -> Adapted:
        """Return the state after one update on the memory, and the teacher's logits from before it."""
        images = inputs.images
        assert images is not None
        with torch.no_grad():
            seen = source.forward(images, {**state["teacher"], **state["teacher_stats"]})
        pool = self._remembered(state, images, seen.logits)
        gamma, prototypes = self._drift(state, seen.features, seen.logits.argmax(-1))
        after = self._updated(source, state, pool.taken(pool.by_class()), inputs.draws, gamma)
        if self.adaptive_lambda or self.adaptive_alpha:
            after = {**after, "prototypes": prototypes}
        return Adapted({**after, "memory": pool.memory()}, seen.logits)

    def _remembered(self, state: State, images: Tensor, logits: Tensor) -> Pool:
        """Return the memory with the images of the batch put in, one by one."""
        p, classes = logits.softmax(-1), logits.shape[-1]
        uncertain = -(p * (p + 1e-6).log()).sum(-1)
        pool = Pool(state["memory"], images)
        score = partial(
            undeserving, capacity=self.capacity, classes=classes, time_weight=self.time_weight,
            uncertainty_weight=self.uncertainty_weight,
        )  # fmt: skip
        for row, (label, u) in enumerate(zip(logits.argmax(-1).tolist(), uncertain.tolist(), strict=True)):
            remember_by_score(pool, Item(self.capacity + row, label, u), classes, score)
        return pool

    def _drift(self, state: State, features: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Return gamma of the batch's classes, and the prototypes (K, D) after it."""
        belongs = F.one_hot(labels, len(state["known"])).to(features)
        there = (belongs.sum(0) > 0) & state["known"]
        away = (state["prototypes"] - state["source_mean"]).square() / (state["source_var"] + 1e-6)
        gamma = 1 - (-(away.mean(-1) * there).sum() / there.sum().clamp(min=1)).exp()
        means = belongs.T @ features / belongs.sum(0).clamp(min=1)[:, None]
        moved = KEEP * state["prototypes"] + (1 - KEEP) * means
        return gamma, torch.where(there[:, None], moved, state["prototypes"])

    def _updated(
        self, source: SourceModel, state: State, images: Tensor, draws: Draws, gamma: Tensor
    ) -> State:
        """Return the state after one step of the student on the memory, and of the teacher after it."""
        rule = blend(self.alpha_bn, unbiased=False, store=True)
        with torch.no_grad():
            taught = source.forward(images, {**state["teacher"], **state["teacher_stats"]}, norm=rule)
            fixed = source.forward(images, state["anchor_stats"], norm=rule)
        weight = self.lambda_0 * (gamma if self.adaptive_lambda else 1)

        def loss(params: Tensors) -> tuple[Tensor, Tensors]:
            own = source.forward(images, {**params, **state["stats"]}, norm=rule)
            stats = {**state["stats"], **own.stats}
            other = source.forward(augment(images, draws), {**params, **stats}, norm=rule)
            value = self._compared(taught.logits, own.logits, other.logits)
            value = value + weight * self._distance(source, params)
            value = value + self.anchor * soft_cross_entropy(fixed.logits, other.logits).mean()
            return value, other.stats

        grads, _, stats = gradient(loss, state["params"])
        after = self.moved(state, grads)
        alpha = self.alpha_0 * (1 - gamma if self.adaptive_alpha else 1)
        teacher = ema(state["teacher"], after["params"], keep=1 - alpha)
        return {
            **after, "teacher": teacher, "stats": {**state["stats"], **stats},
            "teacher_stats": {**state["teacher_stats"], **taught.stats},
            "anchor_stats": {**state["anchor_stats"], **fixed.stats},
        }  # fmt: skip

    def _compared(self, taught: Tensor, own: Tensor, other: Tensor) -> Tensor:
        """Return how far the student's two predictions are from the teacher's."""
        if self.loss == "ce":
            return soft_cross_entropy(taught, other).mean()
        each = symmetric_cross_entropy(taught, own) + symmetric_cross_entropy(taught, other)
        return 0.5 * each.mean()

    def _distance(self, source: SourceModel, params: Tensors) -> Tensor | float:
        """Return the mean distance of the adapted tensors from the source model's."""
        pairs = [(p, source.params[name]) for name, p in params.items()]
        if self.regulariser == "none":
            return 0.0
        if self.regulariser == "l2":
            return torch.stack([(p - first).square().sum() for p, first in pairs]).mean()
        return -torch.stack([F.cosine_similarity(p, first, dim=0) for p, first in pairs]).mean()

    @torch.no_grad()
    def _class_moments(self, source: SourceModel, task: Task) -> Tensors:
        """Return mean and unbiased variance (K, D) of the features of each predicted class, and where there are any."""
        zeros = torch.zeros(source.num_classes, source.dim, dtype=widest(source.device), device=source.device)
        count, total, squares = zeros[:, :1], zeros, zeros
        for images, _ in source_batches(task, self.samples):
            seen = source.forward(images)
            belongs = F.one_hot(seen.logits.argmax(-1), source.num_classes).to(widest(source.device))
            features = seen.features.to(widest(source.device))
            count = count + belongs.sum(0)[:, None]
            total, squares = total + belongs.T @ features, squares + belongs.T @ features.square()
        mean = total / count.clamp(min=1)
        var = ((squares - count * mean.square()) / (count - 1).clamp(min=1)).clamp(min=0)
        moments = {"source_mean": mean.to(source.dtype), "source_var": var.to(source.dtype)}
        return {**moments, "known": count[:, 0] > 1}
