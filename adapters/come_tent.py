# SPDX-License-Identifier: Apache-2.0
"""TENT with the loss of COME."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal

from tta_bench.method import Card
from tta_bench.optim import Optimizer

from ._come import COME, PRESETS
from .tent import Tent


@dataclass(frozen=True)
class ComeTent(Tent):
    """Minimise the entropy of the opinion that a prediction stands for, as TENT does that of its softmax.

    ``b_c = exp(z_c) / S``, ``u = K / S``, ``S = sum_c exp(z_c) + K``; ``loss = mean_i H([b_i, u_i])``. The gradient has
    no part along the logits, so that certainty cannot grow by their length alone. The rest is TENT.

    Source: Zhang et al., ICLR 2025, arXiv:2410.10894.
    Differs: K is the number of classes, as in the theory; the published code has 1000 whatever the data.
    """

    loss: Literal["entropy", "come"] = "come"
    optimizer: Optimizer = "sgd"

    card: ClassVar[Card] = replace(
        Tent.card, **COME, parity="online/come_tent",
        notes="With opinion_classes=1000 as in the published code, few classes leave hardly any gradient.",
    )  # fmt: skip
    presets: ClassVar[dict[str, dict[str, Any]]] = PRESETS
