# SPDX-License-Identifier: Apache-2.0
"""SAR with the loss of COME."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal

from tta_bench.method import Card

from ._come import COME, PRESETS
from .sar import Sar


@dataclass(frozen=True)
class ComeSar(Sar):
    """Minimise the entropy H of the opinion that a prediction stands for, as SAR does that of its softmax.

    ``b_c = exp(z_c) / S``, ``u = K / S``, ``S = sum_c exp(z_c) + K``; ``H_i = H([b_i, u_i])`` takes the place of the
    softmax's entropy in both passes and in the average that a collapse is told by. The rest is SAR.

    Source: Zhang et al., ICLR 2025, arXiv:2410.10894.
    Differs: K is the number of classes, as in the theory; the published code has 1000 whatever the data. A fresh start
    and a reset also clear the momentum.
    """

    loss: Literal["entropy", "come"] = "come"

    card: ClassVar[Card] = replace(
        Sar.card, **COME, parity="online/come_sar",
        notes="SAR's recovery threshold was tuned for the softmax's entropy; the opinion's is lower where doubt is "
        "large, so that a threshold of 0.2 may restore the first state at every batch.",
    )  # fmt: skip
    presets: ClassVar[dict[str, dict[str, Any]]] = PRESETS
