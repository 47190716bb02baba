# SPDX-License-Identifier: Apache-2.0
"""EATA with the loss of COME."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal

from tta_bench.method import Card
from tta_bench.optim import Optimizer

from ._come import COME, PRESETS
from .eata import Eata


@dataclass(frozen=True)
class ComeEata(Eata):
    """Minimise the entropy H of the opinion that a prediction stands for, as EATA does that of its softmax.

    ``b_c = exp(z_c) / S``, ``u = K / S``, ``S = sum_c exp(z_c) + K``; ``H_i = H([b_i, u_i])`` decides what is reliable
    and what it weighs: ``loss = mean_{i in S} exp(E0 - H_i) * H_i + alpha * sum_j F_j (theta_j - theta0_j)^2``. The
    test of redundancy and the importance F are EATA's own, by the softmax.

    Source: Zhang et al., ICLR 2025, arXiv:2410.10894.
    Differs: K is the number of classes, as in the theory; the published code has 1000 whatever the data. A reset also
    forgets the mean prediction.
    """

    loss: Literal["entropy", "come"] = "come"
    optimizer: Optimizer = "sgd"
    redundancy: float = 0.05
    alpha: float = 2000.0

    card: ClassVar[Card] = replace(
        Eata.card, **COME, parity="online/come_eata",
        notes="Reads source images once, before the stream, without their labels. E0 is a share of ln K, but the "
        "opinion's entropy may reach ln(K + 1).",
    )  # fmt: skip
    presets: ClassVar[dict[str, dict[str, Any]]] = {
        name: {**values, "redundancy": 0.05, "alpha": 2000.0} for name, values in PRESETS.items()
    }
