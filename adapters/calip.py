# SPDX-License-Identifier: Apache-2.0
"""CALIP: attention without parameters between the patches of an image and the class texts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import inf
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from tta_bench.errors import IncompatibleError
from tta_bench.method import ALL_PRECISIONS, Card, Inputs, SourceModel, State

from ._matching import Matching, text_scale
from ._ranges import within


@dataclass(frozen=True)
class Calip(Matching):
    """Let patches and texts attend to each other, and add what each says of the other's side.

    With unit patches F (P, D), texts T (K, D), image g and ``A = 2 F T^T``: texts guided by patches ``U =
    softmax_patches(A)^T F``, patches guided by texts ``G = softmax_classes(A) T``, pooled to ``v = mean G + max G``;
    ``z = s (g.T + texts_weight g.U + patches_weight v.T)``.

    Source: Guo et al., AAAI 2023, arXiv:2209.14169, eqs. 3 to 9.
    Differs: both weights are fixed, where the reference searches them on the test labels.

    Attributes:
        texts_weight: Of the image compared with the guided texts (beta2 in the reference).
        patches_weight: Of the guided patches compared with the texts (beta3 in the reference).
        scale: Factor s; 0 for that of the source model.
    """

    texts_weight: float = 1.0
    patches_weight: float = 0.01
    scale: float = 100.0

    card: ClassVar[Card] = Card(
        paper="arXiv:2209.14169",
        title="CALIP: Zero-Shot Enhancement of CLIP with Parameter-Free Attention",
        authors="Guo, Ziyu and Zhang, Renrui and Qiu, Longtian and Ma, Xianzheng and Miao, Xupeng and He, Xuming and "
        "Cui, Bin",
        venue="AAAI Conference on Artificial Intelligence",
        year=2023,
        category="episodic",
        updates="inference",
        needs=frozenset({"text", "patch_features"}),
        predicts="before",
        reset="image",
        model="pocket-vit-clip",
        independent=True,
        precision=ALL_PRECISIONS,
        idle=(("texts_weight", 0.0), ("patches_weight", 0.0), ("scale", 0.0)),
        parity="vlm/calip",
        reference_licence="none stated",
        cost="1 forward",
        notes="Needs patch features in the space of the texts: CLIP's transformers with a class token and its ResNets. "
        "The scale of the sum is above that of the model: fit a temperature before calibration is compared.",
    )
    presets: ClassVar[dict[str, dict[str, Any]]] = {
        "ttabc": {"texts_weight": 1.0, "patches_weight": 0.01, "scale": 0.0},
        "lafon-2025": {"texts_weight": 2.0, "patches_weight": 0.1},
    }
    scoring: ClassVar[frozenset[str]] = frozenset({"texts_weight", "patches_weight"})

    def __post_init__(self) -> None:
        """Refuse values outside their range."""
        super().__post_init__()
        within(self, 0, inf, "texts_weight", "patches_weight", "scale")
        within(self, 1, 1, "views")

    def observe(self, source: SourceModel, state: State, inputs: Inputs) -> tuple[State, dict[str, Tensor]]:
        """Return the state unchanged, and the three parts (N, K) of the logits.

        Raises:
            IncompatibleError: If the source model has no patch features in the space of the texts.
        """
        assert inputs.images is not None
        found, text = source.patches(inputs.images), state["text"]
        if found is None:
            raise IncompatibleError(
                f"Calip needs patch features in the space of the texts, and {source.name!r} has none; choose a CLIP "
                "transformer with a class token or CLIP's ResNet, e.g. pocket-vit-clip or open_clip/ViT-B-32:openai"
            )
        image, patches = (F.normalize(part, dim=-1) for part in found)
        attention = 2 * patches @ text.T  # (N, P, K)
        near = (patches @ image.unsqueeze(-1)).squeeze(-1)  # (N, P)
        guided = attention.softmax(-1) @ text
        pooled = guided.mean(1) + guided.amax(1)
        scale = self.scale or text_scale(source)
        return state, {
            "zero_shot": scale * image @ text.T,
            "texts": scale * torch.einsum("npk,np->nk", attention.softmax(1), near),
            "patches": scale * pooled @ text.T,
        }

    def score(self, source: SourceModel, evidence: Mapping[str, Tensor]) -> Tensor:
        """Return the logits (N, K)."""
        guided = self.texts_weight * evidence["texts"] + self.patches_weight * evidence["patches"]
        return evidence["zero_shot"] + guided
