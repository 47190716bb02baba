# SPDX-License-Identifier: Apache-2.0
"""TPT: tune the prompt on the entropy of the mean prediction over confident views of one image."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from tta_bench.method import ALL_PRECISIONS, Card, ViewPolicy

from ._view_tuning import NEEDS, PromptTuning


@dataclass(frozen=True)
class Tpt(PromptTuning):
    """Make the mean prediction over confident views of one image certain by tuning the prompt's context.

    ``loss = H(mean_{v in S} softmax(s x_v . t(ctx)))``, where ``S`` are the views of least entropy under the
    first context; the prediction is that of the image itself under the tuned one.

    Source: Shu et al., NeurIPS 2022, arXiv:2209.07511.
    Differs: image features are computed once, without a graph; at least one view is kept, however few there are.
    """

    card: ClassVar[Card] = Card(
        paper="arXiv:2209.07511",
        title="Test-Time Prompt Tuning for Zero-Shot Generalization in Vision-Language Models",
        authors="Shu, Manli and Nie, Weili and Huang, De-An and Yu, Zhiding and Goldstein, Tom and "
        "Anandkumar, Anima and Xiao, Chaowei",
        venue="Advances in Neural Information Processing Systems",
        year=2022,
        category="episodic",
        updates="parameters",
        prompts="single",
        inputs="features",
        needs=NEEDS,
        views=ViewPolicy(64, "crop"),
        reset="image",
        model="pocket-clip",
        vmappable=True,
        chunk=8,
        precision=ALL_PRECISIONS,
        parity="vlm/tpt",
        cost="64 forward; text tower, over all classes: 2 forward + 1 backward",
        reference_licence="MIT",
        notes="One step of AdamW is nearly a sign step: gradients near 0 decide, so other hardware may give other "
        "predictions. Memory grows with the number of classes.",
    )
    presets: ClassVar[dict[str, dict[str, Any]]] = {
        "imagenet": {"augmentation": "crop"},
        "fine-grained": {"augmentation": "augmix"},
    }
