# SPDX-License-Identifier: Apache-2.0
"""Adaptation of BatchNorm statistics without gradients."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from torch import Tensor

from tta_bench.errors import BadInputError
from tta_bench.method import ALL_PRECISIONS, Adapted, Card, Inputs, Method, SourceModel, State, Task
from tta_bench.norms import NormRule, batch, blend, running, track

STATISTICS = ("batch", "alpha", "ema")


@dataclass(frozen=True)
class Norm(Method):
    """Normalise by the statistics of the test batch instead of those of the training set.

    ``batch``: mean and biased variance of the batch. ``alpha``: ``(1 - alpha) * stored + alpha * batch``
    with the batch's unbiased variance and the source's own stored statistics; ``alpha = n / (N + n)`` for a
    batch of n and a prior of N source images. ``ema``: one forward pass moves the stored statistics by
    ``momentum`` towards the batch (unbiased variance), a second one predicts with them; they carry over.

    Source: Nado et al., arXiv:2006.10963 (``batch``); Schneider et al., arXiv:2006.16971 (``alpha``).
    Differs: ``batch`` stores no statistics behind the prediction's back.

    Attributes:
        statistics: Which statistics the layers normalise by.
        alpha: Share of the batch under ``alpha``, in [0, 1].
        momentum: Share of the batch in the moving average under ``ema``, in [0, 1].
    """

    statistics: Literal["batch", "alpha", "ema"] = "batch"
    alpha: float = 0.1
    momentum: float = 0.1

    card: ClassVar[Card] = Card(
        paper="arXiv:2006.16971",
        title="Improving robustness against common corruptions by covariate shift adaptation",
        authors="Schneider, Steffen and Rusak, Evgenia and Eck, Luisa and Bringmann, Oliver and Brendel, "
        "Wieland and Bethge, Matthias",
        venue="Advances in Neural Information Processing Systems",
        year=2020,
        category="online",
        updates="state",
        needs=frozenset({"batchnorm"}),
        predicts="after",
        vmappable=True,
        precision=ALL_PRECISIONS,
        idle=(("statistics", "alpha"), ("alpha", 0.0)),
        parity="online/norm_test",
        cost="1 forward; 2 forward with statistics=ema",
        notes="Batches of one or few classes hurt it; batch size and order matter.",
    )
    one_image: ClassVar[str] = "use preset=schneider-2020-one-image, or statistics=alpha with a small alpha"
    presets: ClassVar[dict[str, dict[str, Any]]] = {
        "nado-2020": {"statistics": "batch"},
        "schneider-2020-one-image": {"statistics": "alpha", "alpha": 1 / 17},
        "alpha-0.1": {"statistics": "alpha", "alpha": 0.1},
        "ema": {"statistics": "ema", "momentum": 0.1},
    }

    def __post_init__(self) -> None:
        """Refuse unknown statistics and shares outside [0, 1]."""
        if self.statistics not in STATISTICS:
            raise BadInputError(f"statistics must be one of {', '.join(STATISTICS)}, got {self.statistics!r}")
        for name, share in (("alpha", self.alpha), ("momentum", self.momentum)):
            if not 0 <= share <= 1:
                raise BadInputError(f"{name} must lie in [0, 1], got {share}; it is the share of the batch")

    def init(self, source: SourceModel, task: Task) -> State:
        """Return the stored statistics where they move, by tensor name."""
        return {"params": {name: source.buffers[name] for name in self.adapted_tensors(source)}}

    def adapt(self, source: SourceModel, state: State, inputs: Inputs) -> Adapted:
        """Return moved statistics under ``ema``, else the state unchanged."""
        if self.statistics != "ema":
            return Adapted(state)
        assert inputs.images is not None
        moved = source.forward(inputs.images, state["params"], norm=track(self.momentum)).stats
        return Adapted({"params": {**state["params"], **moved}})

    def predict(self, source: SourceModel, state: State, inputs: Inputs) -> Tensor:
        """Return the logits (N, K) under the chosen statistics."""
        assert inputs.images is not None
        return source.logits(inputs.images, state["params"], norm=self._rule())

    def adapted_tensors(self, source: SourceModel) -> tuple[str, ...]:
        """Return the names of the stored statistics that ``ema`` moves."""
        if self.statistics != "ema":
            return ()
        layers = [layer.name for layer in source.layers if layer.kind == "batch"]
        names = (f"{name}.{leaf}" for name in layers for leaf in ("running_mean", "running_var"))
        return tuple(name for name in names if name in source.buffers)

    def _rule(self) -> NormRule:
        if self.statistics == "batch":
            return batch()
        return blend(self.alpha) if self.statistics == "alpha" else running()
