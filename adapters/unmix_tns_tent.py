# SPDX-License-Identifier: Apache-2.0
"""TENT on the normalisation of UnMix-TNS."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor

from tta_bench.errors import BadInputError
from tta_bench.losses import entropy
from tta_bench.method import ALL_PRECISIONS, Adapted, Card, Inputs, SourceModel, State, Task
from tta_bench.optim import Tensors, gradient

from ._descent import Descending
from ._unmix import UNMIX, Unmixing, kept


@dataclass(frozen=True)
class UnmixTnsTent(Descending, Unmixing):
    """Minimise the entropy of the predictions as TENT does, with UnMix-TNS in the BatchNorm layers.

    ``loss = mean_i H(softmax(z_i))`` over the affine tensors of the BatchNorm layers; gradients flow through each
    instance's own statistics, not through its likeness to the components. Each pass moves the components once.

    Source: Tomar et al., ICLR 2024, "Un-Mixing Test-Time Normalization Statistics", section 4.
    Differs: the noise comes from the first step's draws, so that a reset draws again.

    Attributes:
        steps: Updates for each batch.
    """

    lr: float = 1e-5
    steps: int = 1

    card: ClassVar[Card] = Card(
        **UNMIX,
        category="online",
        updates="parameters",
        needs=frozenset({"batchnorm", "gradients"}),
        predicts="before",
        vmappable=True,
        precision=ALL_PRECISIONS,
        parity="online/unmixtns_tent",
        cost="1 forward + 1 backward",
        reference_licence="none stated",
        notes="Made for correlated streams; the published rates are far below TENT's own.",
    )
    presets: ClassVar[dict[str, dict[str, Any]]] = {
        "cifar10-c": {"components": 16, "full_batch": 64, "optimizer": "adam", "lr": 1e-5},
        "cifar100-c": {"components": 16, "full_batch": 64, "optimizer": "adam", "lr": 1e-5},
        "imagenet-c": {"components": 16, "full_batch": 16, "optimizer": "adam", "lr": 2.5e-6},
        "mixed": {"components": 128, "full_batch": 64, "optimizer": "adam", "lr": 1e-5},
    }

    def __post_init__(self) -> None:
        """Refuse values outside their range."""
        Descending.__post_init__(self)
        Unmixing.__post_init__(self)
        if self.steps < 1:
            raise BadInputError(f"steps must be 1 or more, got {self.steps}")

    def tensors(self, source: SourceModel) -> Tensors:
        """Return the affine tensors of the BatchNorm layers."""
        return source.normalisation(("batch",))

    def adapted_tensors(self, source: SourceModel) -> tuple[str, ...]:
        """Return the names of the affine tensors and of the statistics that the components take the place of."""
        return (*Descending.adapted_tensors(self, source), *Unmixing.adapted_tensors(self, source))

    def init(self, source: SourceModel, task: Task) -> State:
        """Return the affine tensors, the optimiser's state and the components before their noise."""
        return {**self.initial_state(source), **self.unset_components(source, task)}

    def adapt(self, source: SourceModel, state: State, inputs: Inputs) -> Adapted:
        """Return the state after the updates, with the logits of the pass before the last of them."""
        images = inputs.images
        assert images is not None
        state = self.begun(source, state, inputs.draws)
        for _ in range(self.steps):

            def loss(params: Tensors, state: State = state) -> tuple[Tensor, tuple[Tensor, Tensors]]:
                seen = source.forward(images, params, norm=self.rule(state))
                return entropy(seen.logits).mean(), (seen.logits, seen.stats)

            grads, _, (logits, stats) = gradient(loss, state["params"])
            state = {**self.moved(state, grads), "stats": kept(state["stats"], stats)}
        return Adapted(state, logits)
