# SPDX-License-Identifier: Apache-2.0
"""WATT: weights tuned under several prompt templates, and averaged."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from tta_bench.errors import BadInputError
from tta_bench.method import ALL_PRECISIONS, Card, Inputs, SourceModel, State
from tta_bench.optim import Tensors
from tta_bench.prompts import sentences

from ._texts import text_side
from ._visual_norms import NEEDS, Descent, VisualNorms, agreement, encoded

TEMPLATES = (
    "a photo of a {}", "itap of a {}", "a bad photo of the {}.", "a origami {}.", "a photo of the large {}.",
    "a {} in a video game.", "art of the {}.", "a photo of the small {}.",
)  # fmt: skip
MODES, ENDS = ("sequential", "parallel"), ("templates", "source")


@dataclass(frozen=True)
class Watt(VisualNorms):
    """Tune the image tower's norm layers under each of several templates, average the weights, and repeat.

    Under template j the caption u_i of image i is that of its most likely class. The loss is CLIPArTT's,
    ``loss = mean_i -sum_j Q_ji ln softmax_j(Z_ij)``, ``Q = softmax(((x x^T + u u^T) / 2) / 0.01)``, ``Z = s x u^T``;
    ``steps`` updates are made for each template. ``sequential``: templates follow on each other's weights; at the end
    of a repetition the weights are the mean of those after each template. ``parallel``: every template starts from the
    last mean. The prediction is a pass after the last repetition, with the mean of the templates' class features.

    Source: Osowiechi et al., NeurIPS 2024, arXiv:2406.13875, section 3.
    Differs: logits have the model's own scale, where the published code has exactly 100.

    Attributes:
        steps: Updates for each template in a repetition.
        repetitions: How often the weights are averaged.
        mode: ``sequential`` or ``parallel``.
        templates: Prompt templates with one ``{}`` each.
        predict_with: Class features of the prediction: the mean over ``templates``, or those of the ``source`` model.
    """

    steps: int = 2
    repetitions: int = 5
    mode: Literal["sequential", "parallel"] = "sequential"
    templates: tuple[str, ...] = TEMPLATES
    predict_with: Literal["templates", "source"] = "templates"

    card: ClassVar[Card] = Card(
        paper="arXiv:2406.13875",
        title="WATT: Weight Average Test-Time Adaptation of CLIP",
        authors="Osowiechi, David and Noori, Mehrdad and Hakim, Gustavo Adolfo Vargas and Yazdanpanah, Moslem and "
        "Bahri, Ali and Cheraghalikhani, Milad and Dastani, Sahar and Beizaee, Farzad and Ben Ayed, Ismail and "
        "Desrosiers, Christian",
        venue="Advances in Neural Information Processing Systems",
        year=2024,
        category="transductive",
        updates="parameters",
        needs=NEEDS,
        reset="batch",
        model="pocket-clip",
        precision=ALL_PRECISIONS,
        parity="vlm/watt",
        cost="81 forward + 80 backward",
        notes="Works on a batch as a whole. Its templates are part of its gain; compare with zero-shot under the same.",
    )
    presets: ClassVar[dict[str, dict[str, Any]]] = {
        "sequential": {"mode": "sequential", "steps": 2, "repetitions": 5, "lr": 1e-3},
        "parallel": {"mode": "parallel", "steps": 2, "repetitions": 5, "lr": 1e-3},
    }

    def __post_init__(self) -> None:
        """Refuse values outside their range."""
        super().__post_init__()
        if self.repetitions < 1 or not self.templates:
            raise BadInputError(
                f"repetitions must be 1 or more and templates at least one, got {self.repetitions} and "
                f"{len(self.templates)}"
            )
        if any(template.count("{}") != 1 for template in self.templates):
            raise BadInputError(f"each of the templates must have one {{}}, got {list(self.templates)}")
        if self.mode not in MODES or self.predict_with not in ENDS:
            raise BadInputError(
                f"mode must be one of {', '.join(MODES)} and predict_with one of {', '.join(ENDS)}, got "
                f"{self.mode!r} and {self.predict_with!r}"
            )

    def tune(self, source: SourceModel, state: State, images: Tensor) -> Descent:
        """Take the steps of all repetitions on a batch."""
        losses: list[Tensor] = []
        for repetition in range(self.repetitions):
            mean, ends = state["params"], []
            for template in self.templates:
                if self.mode == "parallel":
                    state = {**state, "params": mean}
                    if repetition == 0:
                        state = {**state, "optimizer": self.descent().init(mean)}
                state = self._under(source, state, images, template, losses)
                ends.append(state["params"])
            averaged = {name: torch.stack([end[name] for end in ends]).mean(0) for name in mean}
            state = {**state, "params": averaged}
        return Descent(state, torch.stack(losses))

    def _under(
        self, source: SourceModel, state: State, images: Tensor, template: str, losses: list[Tensor]
    ) -> State:
        """Return the state after the steps under one template, and note their losses."""
        texts = text_side(source).prototypes((template,))

        def loss(params: Tensors) -> Tensor:
            features = encoded(source, images, params)
            best = text_side(source).logits(features.detach(), texts).argmax(-1)
            return agreement(source, features, texts[best])

        for _ in range(self.steps):
            state, value = self.stepped(state, loss)
            losses.append(value)
        return state

    def predict(self, source: SourceModel, state: State, inputs: Inputs) -> Tensor:
        """Return the logits (N, K) under the averaged weights."""
        assert inputs.images is not None
        features = encoded(source, inputs.images, state["params"])
        if self.predict_with == "source":
            return source.head(features)
        text = text_side(source)
        return text.logits(features, text.prototypes(self.templates))

    def sentences(self, source: SourceModel) -> tuple[str, ...]:
        """Return what the templates say of the classes."""
        return sentences(self.templates, source.class_names)
