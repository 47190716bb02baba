# SPDX-License-Identifier: Apache-2.0
"""CoTTA: learn from an averaged teacher over augmented views, and restore random weights of the source model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from tta_bench.augment import Draws, Jitter, augment, draw_jitter
from tta_bench.errors import BadInputError
from tta_bench.losses import soft_cross_entropy, symmetric_cross_entropy
from tta_bench.method import ALL_PRECISIONS, Adapted, Card, Inputs, SourceModel, State
from tta_bench.norms import batch
from tta_bench.optim import Tensors, ema, gradient

from ._descent import Descending


@dataclass(frozen=True)
class Cotta(Descending):
    """Follow the averaged teacher's predictions with all weights, and restore some of them at every step.

    Where the source model's mean confidence on the batch is below ``confidence`` the teacher's logits are the
    mean over ``views`` augmented copies, else those of the images. The student takes a step on
    ``mean_i CE(softmax z_teacher, z_student)``; the teacher becomes ``keep teacher + (1 - keep) student``; then
    every entry of the student returns to the source model's value with probability ``restore``. The
    prediction is the teacher's, from before the step. BatchNorm layers normalise by the batch in all three.

    Source: Wang et al., CVPR 2022, arXiv:2203.13591, eqs. 1 to 8.
    Differs: the augmented passes are made only where they are used; the noise of a view is shared by the
    images of the batch; the blur repeats the edge of the image itself.

    Attributes:
        loss: ``"teacher"`` for the cross-entropy above, ``"symmetric"`` for its mean with the reverse one.
        confidence: Mean confidence of the source model below which views are averaged.
        views: Augmented copies.
        keep: Share of the teacher that is kept.
        restore: Probability of an entry's return to the source model's value.
    """

    loss: Literal["teacher", "symmetric"] = "teacher"
    confidence: float = 0.92
    views: int = 32
    keep: float = 0.999
    restore: float = 0.01

    card: ClassVar[Card] = Card(
        paper="arXiv:2203.13591",
        title="Continual Test-Time Domain Adaptation",
        authors="Wang, Qin and Fink, Olga and Van Gool, Luc and Dai, Dengxin",
        venue="Conference on Computer Vision and Pattern Recognition",
        year=2022,
        category="online",
        updates="parameters",
        needs=frozenset({"gradients"}),
        predicts="before",
        draw_device="device",
        precision=ALL_PRECISIONS,
        parity="online/cotta",
        cost="34 forward + 1 backward with 32 views; 3 forward + 1 backward where the source model is sure",
        notes="While student and teacher are equal the gradient of the default "
        "loss is zero, and Adam turns its rounding into steps.",
    )
    presets: ClassVar[dict[str, dict[str, Any]]] = {
        "cifar10-c": {"lr": 1e-3, "confidence": 0.92, "restore": 0.01},
        "cifar100-c": {"lr": 1e-3, "confidence": 0.72, "restore": 0.01},
        "imagenet-c": {
            "optimizer": "sgd", "lr": 0.01, "momentum": 0.9, "loss": "symmetric", "confidence": 0.1, "restore": 0.001,
        },
    }  # fmt: skip

    def __post_init__(self) -> None:
        """Refuse values outside their range."""
        super().__post_init__()
        if self.loss not in ("teacher", "symmetric") or self.views < 1:
            raise BadInputError(
                f"loss must be 'teacher' or 'symmetric' and views 1 or more, got {self.loss!r} and {self.views}"
            )
        if not (0 <= self.keep <= 1 and 0 <= self.restore <= 1 and self.confidence >= 0):
            raise BadInputError(
                "keep and restore must lie in [0, 1] and confidence be 0 or more, "
                f"got {self.keep}, {self.restore} and {self.confidence}"
            )

    def tensors(self, source: SourceModel) -> Tensors:
        """Return every weight and bias."""
        return source.weights()

    def initial_state(self, source: SourceModel) -> State:
        """Return the first state: student and teacher are the source model."""
        state = super().initial_state(source)
        return {**state, "teacher": dict(state["params"])}

    def draw(self, source: SourceModel, n: int, generator: torch.Generator) -> Any:
        """Return the parameters of the views, and which entries (1, P) of the student are restored."""
        views = draw_jitter(self.views, source.image_shape, generator, Jitter())
        count = sum(p.numel() for p in self.tensors(source).values())
        restored = torch.empty(1, count, dtype=torch.bool, device=generator.device)
        restored.bernoulli_(self.restore, generator=generator)
        return {"views": {name: tensor[None] for name, tensor in views.items()}, "restored": restored}

    def adapt(self, source: SourceModel, state: State, inputs: Inputs) -> Adapted:
        """Return the state after one step, and the teacher's logits from before it."""
        images = inputs.images
        assert images is not None
        taught = self._taught(source, state["teacher"], images, inputs.draws["views"])
        compare = soft_cross_entropy if self.loss == "teacher" else symmetric_cross_entropy

        def loss(params: Tensors) -> tuple[Tensor, None]:
            return compare(taught, source.logits(images, params, norm=batch())).mean(), None

        grads, _, _ = gradient(loss, state["params"])
        after = self.moved(state, grads)
        teacher = ema(state["teacher"], after["params"], keep=self.keep)
        student = self._restored(source, after["params"], inputs.draws["restored"][0])
        return Adapted({**after, "params": student, "teacher": teacher}, taught)

    @torch.no_grad()
    def _taught(self, source: SourceModel, teacher: Tensors, images: Tensor, views: Draws) -> Tensor:
        """Return the teacher's logits (N, K), averaged over views where the source model is unsure."""
        sure = source.logits(images, norm=batch()).softmax(-1).amax(-1).mean()
        if not sure < self.confidence:
            return source.logits(images, teacher, norm=batch())
        total = images.new_zeros(len(images), source.num_classes)
        for k in range(self.views):
            view = augment(images, {name: tensor[0, k : k + 1] for name, tensor in views.items()})
            total = total + source.logits(view, teacher, norm=batch())
        return total / self.views

    def _restored(self, source: SourceModel, student: Tensors, restored: Tensor) -> Tensors:
        """Return the student's tensors with the chosen entries (P,) of the source model."""
        parts: Any = torch.split(restored, [p.numel() for p in student.values()])
        chosen = zip(student.items(), parts, strict=True)
        return {name: torch.where(part.view_as(p), source.params[name], p) for (name, p), part in chosen}
