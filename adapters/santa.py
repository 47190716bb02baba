# SPDX-License-Identifier: Apache-2.0
"""SANTA: stay near an anchor's predictions while features move to the prototypes of the source classes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from tta_bench.augment import augment
from tta_bench.losses import soft_cross_entropy
from tta_bench.method import ALL_PRECISIONS, Adapted, Card, Inputs, SourceModel, State
from tta_bench.norms import batch
from tta_bench.optim import Tensors, gradient

from ._contrast import PRESETS, Prototypical


@dataclass(frozen=True)
class Santa(Prototypical):
    """Distil from the source model as an anchor, and draw features towards source prototypes.

    ``L_anchor = mean_i 1/2 (CE(softmax z_i, z_anchor_i) + CE(softmax z'_i, z_anchor_i))`` with the logits z' of
    an augmented copy and those of the source model under the batch's statistics; gradients flow through the
    softmax. ``L_con`` is the contrastive loss, at the given temperature, of projected triples: the feature, the
    copy's feature and the source class mean with the largest cosine. The affine tensors of the norm layers and
    the projector take a step on ``agreement L_anchor + contrast L_con``; the logits are those before it.

    Source: Chakrabarty et al., TMLR 2023, "SANTA: Source Anchoring Network and Target Alignment for Continual
    Test Time Adaptation", section 4.
    Differs: the projector starts from weights drawn with `seed`; layer and group norms are adapted too.

    Attributes:
        temperature: Of the contrastive loss.
        width: Width of the projector.
        samples: Labelled source images for the prototypes; all of them if there are fewer.
        seed: Of the projector's first weights.
        contrast: Weight of the contrastive loss.
        agreement: Weight of the distillation from the anchor.
    """

    card: ClassVar[Card] = Card(
        paper="openreview:V7guVYzvE4",
        title="SANTA: Source Anchoring Network and Target Alignment for Continual Test Time Adaptation",
        authors="Chakrabarty, Goirik and Sreenivas, Manogna and Biswas, Soma",
        venue="Transactions on Machine Learning Research",
        year=2023,
        category="online",
        updates="parameters",
        needs=frozenset({"gradients", "source_images", "source_labels"}),
        predicts="before",
        precision=ALL_PRECISIONS,
        parity="online/santa",
        cost="3 forward + 2 backward; before the stream the prototypes, 1 forward over source images",
        notes="Reads labelled source images once, before the stream.",
    )
    presets: ClassVar[dict[str, dict[str, Any]]] = {**PRESETS, "pocket": {"samples": 512}}

    def adapt(self, source: SourceModel, state: State, inputs: Inputs) -> Adapted:
        """Return the state after one step, and the logits of the pass before it."""
        images = inputs.images
        assert images is not None
        copies, names = augment(images, inputs.draws), state["params"].keys()
        with torch.no_grad():
            anchor = source.logits(images, norm=batch())

        def loss(tensors: Tensors) -> tuple[Tensor, Tensor]:
            params = {name: tensors[name] for name in names}
            own, other = (source.forward(x, params, norm=batch()) for x in (images, copies))
            near = soft_cross_entropy(own.logits, anchor) + soft_cross_entropy(other.logits, anchor)
            drawn = self.attraction(state["prototypes"], tensors, own.features, other.features)
            return self.agreement * 0.5 * near.mean() + self.contrast * drawn, own.logits

        grads, _, logits = gradient(loss, self.trained(state))
        return Adapted(self.moved_both(state, grads), logits)
