# SPDX-License-Identifier: Apache-2.0
"""TDA: two caches of test features that correct zero-shot logits without training."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from tta_bench.method import ALL_PRECISIONS, Card

from ._cache import PAIRS, Caching
from ._matching import NEEDS

IMAGENETS = {"imagenet", "imagenet-a", "imagenet-r", "imagenet-sketch", "imagenet-v2"}
MANY_VIEWS = IMAGENETS - {"imagenet"}


@dataclass(frozen=True)
class Tda(Caching):
    """Compare an image with confident and with doubtful test images that came before it.

    ``z = s f.T + alpha sum_i exp(-beta (1 - f.k_i)) e_{c_i} - alpha' sum_j exp(-beta' (1 - f.k_j)) m_j`` over a
    positive cache of each class's features of least entropy, and a negative one of features of medium entropy, whose
    masks ``m_j`` mark the classes of a stored probability in between. The image enters the caches before it is scored.
    With several views, f and z are means over the confident ones.

    Source: Karmanov et al., CVPR 2024, arXiv:2403.18293, eqs. 3 to 8.
    Differs: nothing; the entropies are natural and divided by ``log2 K``, as in the reference.
    """

    card: ClassVar[Card] = Card(
        paper="arXiv:2403.18293",
        title="Efficient Test-Time Adaptation of Vision-Language Models",
        authors="Karmanov, Adilbek and Guan, Dayan and Lu, Shijian and El Saddik, Abdulmotaleb and Xing, Eric",
        venue="Conference on Computer Vision and Pattern Recognition",
        year=2024,
        category="online",
        updates="state",
        inputs="features",
        needs=NEEDS,
        predicts="during",
        model="pocket-clip",
        precision=ALL_PRECISIONS,
        idle=(("alpha", 0.0), ("negative_alpha", 0.0)),
        parity="vlm/tda",
        cost="1 forward",
        notes="Online and without gradients; depends on the order. The published alpha and beta were chosen on each "
        "test set.",
    )
    presets: ClassVar[dict[str, dict[str, Any]]] = {
        **{
            name: {"alpha": alpha, "beta": beta}
            | ({"prompts": "seven"} if name in IMAGENETS else {})
            | ({"views": 64, "augmentation": "augmix"} if name in MANY_VIEWS else {})
            for name, (alpha, beta) in PAIRS.items()
        },
        "tta-vlm": {"prompts": "single", "entropy_eps": 1e-5},
    }
