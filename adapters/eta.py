# SPDX-License-Identifier: Apache-2.0
"""ETA: entropy minimisation on samples that are reliable and not redundant."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from tta_bench.method import ALL_PRECISIONS, Card

from ._reliable import PRESETS, Reliable


@dataclass(frozen=True)
class Eta(Reliable):
    """Minimise the entropy of those samples that are certain and unlike the mean prediction.

    ``loss = mean_{i in S} exp(E0 - H_i) * H_i`` with ``S = {i: H_i < E0, |cos(mean, p_i)| < redundancy}`` and
    ``E0 = margin * ln K``; the weight carries no gradient. The mean prediction moves by a tenth towards that
    of S. Where S is empty nothing changes. The logits are those before the update.

    Source: Niu et al., ICML 2022, arXiv:2204.02610, sections 4.1 and 4.2 (EATA without its anti-forgetting term).
    Differs: a reset also forgets the mean prediction; dropout and stochastic depth are off.

    Attributes:
        margin: Entropy below which a sample is reliable, as a share of ln K.
        redundancy: Cosine with the mean prediction above which a sample is redundant.
    """

    card: ClassVar[Card] = Card(
        paper="arXiv:2204.02610",
        title="Efficient Test-Time Model Adaptation without Forgetting",
        authors="Niu, Shuaicheng and Wu, Jiaxiang and Zhang, Yifan and Chen, Yaofo and Zheng, Shijian and "
        "Zhao, Peilin and Tan, Mingkui",
        venue="International Conference on Machine Learning",
        year=2022,
        category="online",
        updates="parameters",
        needs=frozenset({"gradients"}),
        predicts="before",
        precision=ALL_PRECISIONS,
        parity="online/eta",
        cost="1 forward + 1 backward",
        notes="The redundancy threshold depends on the number of classes; the presets are the literature's.",
    )
    presets: ClassVar[dict[str, dict[str, Any]]] = PRESETS
