# SPDX-License-Identifier: Apache-2.0
"""UnMix-TNS: several components of BatchNorm statistics, for streams whose classes are correlated."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch

from tta_bench.method import ALL_PRECISIONS, Adapted, Card, Inputs, SourceModel, State, Task

from ._unmix import UNMIX, Unmixing, kept


@dataclass(frozen=True)
class UnmixTns(Unmixing):
    """Normalise each instance by a mixture of K components of statistics, which follow the stream slowly.

    Each BatchNorm layer has means M_k and variances V_k, at first ``M_k = mu + sqrt(alpha K / (K - 1)) sigma eps`` with
    normal eps and ``V_k = (1 - alpha) sigma^2``. An instance with mean a and variance s is like component k by
    ``p_k = softmax_k(cos(a, M_k) / T)``; it is normalised by the moments of the even mixture of
    ``(1 - p_k) M_k + p_k a`` and ``(1 - p_k) V_k + p_k s``. Then ``M_k += m mean_i p_ik (a_i - M_k)``, V_k likewise.

    Source: Tomar et al., ICLR 2024, "Un-Mixing Test-Time Normalization Statistics", section 3.
    Differs: the noise comes from the first step's draws, so that a reset draws again; as in the published code, the
    spread between a component and the instance is left out of the variance unless `between` is set.
    """

    card: ClassVar[Card] = Card(
        **UNMIX,
        category="online",
        updates="state",
        needs=frozenset({"batchnorm"}),
        predicts="before",
        vmappable=True,
        precision=ALL_PRECISIONS,
        parity="online/unmixtns",
        cost="1 forward",
        reference_licence="none stated",
        notes="Made for correlated streams. The momentum goes by the configured batch size, not the last one's.",
    )
    presets: ClassVar[dict[str, dict[str, Any]]] = {
        "cifar10-c": {"components": 16, "full_batch": 64},
        "cifar100-c": {"components": 16, "full_batch": 64},
        "imagenet-c": {"components": 16, "full_batch": 16},
        "mixed": {"components": 128, "full_batch": 64},
    }

    def init(self, source: SourceModel, task: Task) -> State:
        """Return the components before their noise."""
        return self.unset_components(source, task)

    def adapt(self, source: SourceModel, state: State, inputs: Inputs) -> Adapted:
        """Return the components after the batch, and its logits under those before it."""
        assert inputs.images is not None
        state = self.begun(source, state, inputs.draws)
        with torch.no_grad():
            seen = source.forward(inputs.images, norm=self.rule(state))
        return Adapted({**state, "stats": kept(state["stats"], seen.stats)}, seen.logits)
