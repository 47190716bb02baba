# SPDX-License-Identifier: Apache-2.0
"""RMT: a robust mean teacher with contrastive learning towards source prototypes and replay of source images."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from tta_bench.augment import augment
from tta_bench.errors import BadInputError
from tta_bench.losses import symmetric_cross_entropy
from tta_bench.method import ALL_PRECISIONS, Adapted, Card, Inputs, SourceModel, State, Task
from tta_bench.norms import batch
from tta_bench.optim import Tensors, ema, gradient

from ._contrast import PRESETS, Prototypical
from ._source_images import source_batches


@dataclass(frozen=True)
class Rmt(Prototypical):
    """Agree with an averaged teacher, move to source prototypes, and rehearse source images.

    ``L = agreement mean_i 1/2 (SCE(z_i, t_i) + SCE(z'_i, t_i)) + contrast L_con + replay CE(z_source, y)``:
    the symmetric cross-entropy SCE of the student's logits, on the images and on augmented copies, with the
    teacher's; the contrastive loss of projected triples of feature, copy's feature and nearest source class
    mean; and the loss on a batch of labelled source images. All weights and the projector take a step, then the
    teacher becomes ``keep teacher + (1 - keep) student``. The prediction is ``z + t`` from before the step. A
    warm-up on source images, before the stream, lets student and teacher drift from the source model: a step
    on ``mean SCE(z, t)`` for each batch, at a learning rate that rises linearly to `lr`.

    Source: Doebler et al., CVPR 2023, arXiv:2211.13081, eqs. 1 to 7.
    Differs: the projector starts from weights drawn with `seed`; the warm-up goes through the source split once
    at most; nothing is kept on disk between runs.

    Attributes:
        keep: Share of the teacher that is kept.
        replay: Weight of the loss on source images; 0 without.
        warmup_samples: Source images of the warm-up; 0 for none.
        temperature: Of the contrastive loss.
        width: Width of the projector.
        samples: Labelled source images for the prototypes; all of them if there are fewer.
        seed: Of the projector's first weights.
        contrast: Weight of the contrastive loss.
        agreement: Weight of the agreement with the teacher.
    """

    keep: float = 0.999
    replay: float = 1.0
    warmup_samples: int = 50000

    card: ClassVar[Card] = Card(
        paper="arXiv:2211.13081",
        title="Robust Mean Teacher for Continual and Gradual Test-Time Adaptation",
        authors="Döbler, Mario and Marsden, Robert A. and Yang, Bin",
        venue="Conference on Computer Vision and Pattern Recognition",
        year=2023,
        category="online",
        updates="parameters",
        needs=frozenset({"gradients", "source_images", "source_labels", "source_replay"}),
        predicts="before",
        precision=ALL_PRECISIONS,
        parity="online/rmt",
        cost="4 forward + 3 backward, one of each over source images; before the stream a warm-up and the "
        "prototypes",
        notes="Reads labelled source images before and during the stream.",
    )
    presets: ClassVar[dict[str, dict[str, Any]]] = {
        **PRESETS,
        "no-replay": {"replay": 0.0, "warmup_samples": 0},
        "pocket": {"samples": 512, "warmup_samples": 512},
    }

    def __post_init__(self) -> None:
        """Refuse values outside their range."""
        super().__post_init__()
        if not 0 <= self.keep <= 1 or not self.replay >= 0 or self.warmup_samples < 0:
            raise BadInputError(
                f"keep must lie in [0, 1], replay and warmup_samples be 0 or more, got {self.keep}, {self.replay} "
                f"and {self.warmup_samples}"
            )

    def tensors(self, source: SourceModel) -> Tensors:
        """Return every weight and bias."""
        return source.weights()

    def init_reads(self, available: int) -> int:
        """Return how many source images are read for the prototypes and in the warm-up."""
        return super().init_reads(available) + min(self.warmup_samples, available)

    def init(self, source: SourceModel, task: Task) -> State:
        """Return the state after the warm-up, with the optimiser's moments from it."""
        state = super().init(source, task)
        return self._warmed(source, task, {**state, "teacher": dict(state["params"])})

    def _warmed(self, source: SourceModel, task: Task, state: State) -> State:
        assert task.source is not None
        batches = -(-min(self.warmup_samples, len(task.source)) // task.batch_size)
        for index, (images, _) in enumerate(source_batches(task, self.warmup_samples)):
            with torch.no_grad():
                taught = source.logits(images, state["teacher"], norm=batch())

            def loss(
                params: Tensors, images: Tensor = images, taught: Tensor = taught
            ) -> tuple[Tensor, None]:
                return symmetric_cross_entropy(
                    source.logits(images, params, norm=batch()), taught
                ).mean(), None

            grads, _, _ = gradient(loss, state["params"])
            descent = replace(self.descent(), lr=self.lr * (index + 1) / batches)
            params, optimizer = descent.step(state["params"], grads, state["optimizer"])
            teacher = ema(state["teacher"], params, keep=self.keep)
            state = {**state, "params": params, "optimizer": optimizer, "teacher": teacher}
        return state

    def adapt(self, source: SourceModel, state: State, inputs: Inputs) -> Adapted:
        """Return the state after one step, and the sum of the student's and the teacher's logits before it."""
        images = inputs.images
        assert images is not None
        copies, names = augment(images, inputs.draws), state["params"].keys()
        with torch.no_grad():
            taught = source.logits(images, state["teacher"], norm=batch())

        def loss(tensors: Tensors) -> tuple[Tensor, Tensor]:
            params = {name: tensors[name] for name in names}
            own, other = (source.forward(x, params, norm=batch()) for x in (images, copies))
            near = symmetric_cross_entropy(own.logits, taught) + symmetric_cross_entropy(other.logits, taught)
            drawn = self.attraction(state["prototypes"], tensors, own.features, other.features)
            value = self.agreement * 0.5 * near.mean() + self.contrast * drawn
            return value + self._rehearsal(source, params, inputs), own.logits

        grads, _, logits = gradient(loss, self.trained(state))
        after = self.moved_both(state, grads)
        teacher = ema(state["teacher"], after["params"], keep=self.keep)
        return Adapted({**after, "teacher": teacher}, logits + taught)

    def _rehearsal(self, source: SourceModel, params: Tensors, inputs: Inputs) -> Tensor | float:
        """Return the weighted loss on the source images of this step."""
        if not self.replay:
            return 0.0
        assert inputs.source_images is not None
        assert inputs.source_labels is not None
        logits = source.logits(inputs.source_images, params, norm=batch())
        return self.replay * F.cross_entropy(logits, inputs.source_labels)
