# SPDX-License-Identifier: Apache-2.0
"""ROID: weighted soft likelihood ratios, with the source model's weights mixed in after every step."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from tta_bench.errors import BadInputError
from tta_bench.method import ALL_PRECISIONS, Card, SourceModel, State
from tta_bench.optim import ema

from ._weighted import PRESETS, Weighted


@dataclass(frozen=True)
class Roid(Weighted):
    """Make certain and diverse samples more certain, and pull the weights back to the source model's.

    ``d_i = 1 - cos(q, p_i)`` and ``c_i = -H_i``, each scaled to [0, 1] over the batch; samples with ``d_i``
    below its mean are left out, the others weigh ``w_i = exp(d_i c_i / temperature)``. The loss is
    ``1/N sum_i w_i (SLR(z_i) + SCE(z_i, z'_i))``: the soft likelihood ratio
    ``-sum_c p_c ln(p_c / (1 - p_c))`` and the symmetric cross-entropy with an augmented copy. After the step
    ``theta <- keep_weights theta + (1 - keep_weights) theta_source`` and ``q <- keep q + (1 - keep) mean p``.
    The prediction is that of the pass before the step, each logit multiplied by its class's smoothed share
    ``(pr_c + s) / (1 + K s)``, ``s = max(1/N, 1/K) / max pr``.

    Source: Marsden et al., WACV 2024, arXiv:2306.00650, eqs. 3 to 9.
    Differs: N is the size of the batch at hand, also where it is smaller than the others; where all samples
    are equally diverse or certain, as in a batch of one, every weight is 1.

    Attributes:
        temperature: Divides the product of a sample's diversity and certainty in the exponent of its weight.
        keep: Share of the mean prediction q that is kept at each batch.
        keep_weights: Share of the adapted tensors that is kept; the rest is the source model's.
        weighting: Whether samples are weighted and those like the mean prediction left out.
        consistency: Whether the predictions of augmented copies are to agree with those of the images.
        prior_correction: Whether the logits are corrected by the batch's mean prediction.
    """

    keep_weights: float = 0.99

    card: ClassVar[Card] = Card(
        paper="arXiv:2306.00650",
        title="Universal Test-time Adaptation through Weight Ensembling, Diversity Weighting, and Prior Correction",
        authors="Marsden, Robert A. and Döbler, Mario and Yang, Bin",
        venue="Winter Conference on Applications of Computer Vision",
        year=2024,
        category="online",
        updates="parameters",
        needs=frozenset({"gradients"}),
        predicts="before",
        precision=ALL_PRECISIONS,
        parity="online/roid",
        cost="2 forward + 2 backward; the second of each over the weighted samples alone",
        notes="Corrected logits are scaled class by class: confidence, entropy and calibration mean little.",
    )
    presets: ClassVar[dict[str, dict[str, Any]]] = PRESETS

    def __post_init__(self) -> None:
        """Refuse values outside their range."""
        super().__post_init__()
        if not 0 <= self.keep_weights <= 1:
            raise BadInputError(f"keep_weights must lie in [0, 1], got {self.keep_weights}; it is a share")

    def ensembled(self, source: SourceModel, state: State) -> State:
        """Return the state with some of the source model's tensors mixed in."""
        return {**state, "params": ema(state["params"], source.params, keep=self.keep_weights)}
