# SPDX-License-Identifier: Apache-2.0
"""BAT-CLIP: the norm layers of both towers, tuned to bring class means near their texts and apart from each other."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from tta_bench.errors import BadInputError
from tta_bench.losses import entropy
from tta_bench.method import ALL_PRECISIONS, Adapted, Card, Inputs, SourceModel, State
from tta_bench.optim import Optimizer, Tensors, gradient

from ._both_towers import class_terms, norms_of_both, parted
from ._descent import Descending
from ._texts import text_side
from ._visual_norms import NEEDS, Descent, encoded


@dataclass(frozen=True)
class BatClip(Descending):
    """Minimise entropy while class means draw near their texts and apart, over the norm layers of both towers.

    With the classes K predicted in a batch, the means zbar_c of their raw image features and the unit class features
    t_c: ``A = mean_c <zbar_c, t_c>``, ``B = sum_{c != c'} (1 - cos(zbar_c, zbar_c'))`` over ordered pairs, and
    ``loss = mean_i H(z_i) - A - B``. Texts are encoded again in every pass. The logits are those before the update.

    Source: Maharana et al., ICCV 2025, arXiv:2412.02837, eqs. 3 to 6.
    Differs: nothing but that a reset also clears the optimiser.

    Attributes:
        steps: Updates for each batch.
    """

    lr: float = 1e-3
    optimizer: Optimizer = "adamw"
    weight_decay: float = 0.01
    steps: int = 1

    card: ClassVar[Card] = Card(
        paper="arXiv:2412.02837",
        title="BATCLIP: Bimodal Online Test-Time Adaptation for CLIP",
        authors="Maharana, Sarthak Kumar and Zhang, Baoming and Karlinsky, Leonid and Feris, Rogerio and Guo, Yunhui",
        venue="International Conference on Computer Vision",
        year=2025,
        category="online",
        updates="parameters",
        needs=NEEDS,
        predicts="before",
        model="pocket-clip",
        vmappable=True,
        precision=ALL_PRECISIONS,
        parity="vlm/batclip",
        cost="1 forward + 1 backward, through the text tower too",
        reference_licence="MIT",
        notes="B grows with the square of the number of classes predicted and A with the length of the features: with "
        "many classes in a batch the entropy hardly counts.",
    )
    presets: ClassVar[dict[str, dict[str, Any]]] = {
        "cifar10-c": {"optimizer": "adamw", "lr": 1e-3, "weight_decay": 0.01},
        "cifar100-c": {"optimizer": "adam", "lr": 5e-4, "weight_decay": 0.01},
        "imagenet-c": {"optimizer": "adamw", "lr": 5e-4, "weight_decay": 0.01},
    }

    def __post_init__(self) -> None:
        """Refuse values outside their range."""
        super().__post_init__()
        if self.steps < 1:
            raise BadInputError(f"steps must be 1 or more, got {self.steps}")

    def tensors(self, source: SourceModel) -> Tensors:
        """Return the affine tensors of the norm layers of both towers; those of the texts start with ``text.``."""
        return norms_of_both(source)

    def look(self, source: SourceModel, params: Tensors, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return raw features (N, D), class features (K, D) and logits (N, K) under adapted tensors."""
        visual, texts = parted(params)
        features, classes = encoded(source, images, visual), text_side(source).prototypes_with(texts)
        return features, classes, text_side(source).logits(features, classes)

    def tune(self, source: SourceModel, state: State, images: Tensor) -> tuple[Descent, Tensor]:
        """Take the steps on a batch; return them and the logits before the last one."""
        losses = []

        def loss(params: Tensors) -> tuple[Tensor, Tensor]:
            features, classes, logits = self.look(source, params, images)
            near, apart = class_terms(features, classes, logits)
            return entropy(logits).mean() - near - apart, logits

        for _ in range(self.steps):
            grads, value, logits = gradient(loss, state["params"])
            state = self.moved(state, grads)
            losses.append(value)
        return Descent(state, torch.stack(losses)), logits

    def adapt(self, source: SourceModel, state: State, inputs: Inputs) -> Adapted:
        """Return the state after the steps, and the logits before the last one."""
        assert inputs.images is not None
        done, logits = self.tune(source, state, inputs.images)
        return Adapted(done.state, logits)
