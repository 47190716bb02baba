# SPDX-License-Identifier: Apache-2.0
"""CLIPArTT: captions of several likely classes as the targets of a batch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from tta_bench.errors import BadInputError
from tta_bench.method import ALL_PRECISIONS, Card, SourceModel

from ._texts import text_side
from ._visual_norms import NEEDS, VisualNorms, agreement

TARGETS = ("both", "images", "texts", "identity")
SCALE_OF_IDENTITY = 1.0


@dataclass(frozen=True)
class Clipartt(VisualNorms):
    """Bring each image near a caption of its most likely classes, as far as the batch is alike.

    The caption of image i names its `classes` most likely classes, ``u_i = unit(E("a photo of a c1 or c2 or c3"))``.
    ``Q = softmax(((x x^T + u u^T) / 2) / 0.01)`` over the batch, ``Z = s x u^T``, and
    ``loss = mean_i -sum_j Q_ji ln softmax_j(Z_ij)`` over the image tower's norm layers; captions are made at every
    step. The prediction is a pass after the last one.

    Source: Hakim et al., WACV 2025, arXiv:2405.00754, eqs. 1 to 6.
    Differs: logits have the model's own scale, where the published code has exactly 100; a caption is encoded once
    for all images that share it.

    Attributes:
        classes: Classes K in a caption.
        target: What Q compares: ``both``, ``images``, ``texts``, or ``identity`` for the image itself alone.
        template: Of a caption.
        conjunction: Word between the classes of a caption.
    """

    classes: int = 3
    target: Literal["both", "images", "texts", "identity"] = "both"
    template: str = "a photo of a {}"
    conjunction: str = "or"

    card: ClassVar[Card] = Card(
        paper="arXiv:2405.00754",
        title="CLIPArTT: Adaptation of CLIP to New Domains at Test Time",
        authors="Hakim, Gustavo Adolfo Vargas and Osowiechi, David and Noori, Mehrdad and Cheraghalikhani, Milad and "
        "Bahri, Ali and Yazdanpanah, Moslem and Ben Ayed, Ismail and Desrosiers, Christian",
        venue="IEEE/CVF Winter Conference on Applications of Computer Vision",
        year=2025,
        category="transductive",
        updates="parameters",
        needs=NEEDS,
        reset="batch",
        model="pocket-clip",
        precision=ALL_PRECISIONS,
        parity="vlm/clipartt",
        cost="11 forward + 10 backward, and as many times the text tower",
        notes="Works on a batch as a whole: one image alone changes nothing.",
    )
    presets: ClassVar[dict[str, dict[str, Any]]] = {"hakim-2025": {"lr": 1e-3, "steps": 10, "classes": 3}}

    def __post_init__(self) -> None:
        """Refuse values outside their range."""
        super().__post_init__()
        if self.classes < 1 or self.target not in TARGETS:
            raise BadInputError(
                f"classes must be 1 or more and target one of {', '.join(TARGETS)}, got {self.classes} and "
                f"{self.target!r}"
            )
        if self.template.count("{}") != 1:
            raise BadInputError(f"template must have one {{}} for the classes, got {self.template!r}")

    def loss(self, source: SourceModel, features: Tensor) -> Tensor:
        """Return the disagreement of the images with their captions."""
        captions = self._captions(source, features.detach())
        x, target = F.normalize(features, dim=-1), None
        if self.target == "images":
            target = x @ x.T
        elif self.target == "texts":
            target = captions @ captions.T
        elif self.target == "identity":
            target = torch.eye(len(x), dtype=x.dtype, device=x.device)
        return agreement(source, features, captions, target)

    def sentences(self, source: SourceModel) -> tuple[str, ...]:
        """Return the template of the captions, whose classes depend on the images."""
        return (self.template,)

    @torch.no_grad()
    def _captions(self, source: SourceModel, features: Tensor) -> Tensor:
        """Return the unit text feature (N, D) of each image's caption."""
        names = source.class_names
        top = source.head(features).topk(min(self.classes, len(names)), dim=-1).indices.tolist()
        prompts = [self.template.format(f" {self.conjunction} ".join(names[c] for c in row)) for row in top]
        distinct = list(dict.fromkeys(prompts))
        encoded = F.normalize(text_side(source).features(distinct), dim=-1)
        return encoded[[distinct.index(prompt) for prompt in prompts]]
