# SPDX-License-Identifier: Apache-2.0
"""TENT: minimise the entropy of the predictions through the affine tensors of the normalisation layers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from tta_bench.errors import BadInputError
from tta_bench.method import ALL_PRECISIONS, Adapted, Card, Inputs, SourceModel, State
from tta_bench.norms import batch
from tta_bench.optim import Tensors, gradient

from ._certainty import Certain


@dataclass(frozen=True)
class Tent(Certain):
    """Minimise the entropy of each batch's predictions over the affine tensors of the norm layers.

    ``loss = mean_i H(softmax(z_i))``; the logits are those of the forward pass before the (last) update, and
    BatchNorm layers normalise by the batch in every pass.

    Source: Wang et al., ICLR 2021, arXiv:2006.10726; the sliding window is an addition of the
    test-time-adaptation benchmark of Doebler et al. for batches of one image.
    Differs: dropout and stochastic depth are off, and a reset empties the window.

    Attributes:
        steps: Updates for each batch.
        layers: Kinds of norm layers whose affine tensors are adapted.
        window: Images in the sliding window; 1 adapts on each batch as it comes.
    """

    steps: int = 1
    layers: tuple[Literal["batch", "layer", "group", "rms"], ...] = ("batch", "layer", "group", "rms")
    window: int = 1

    card: ClassVar[Card] = Card(
        paper="arXiv:2006.10726",
        title="Tent: Fully Test-Time Adaptation by Entropy Minimization",
        authors="Wang, Dequan and Shelhamer, Evan and Liu, Shaoteng and Olshausen, Bruno and Darrell, Trevor",
        venue="International Conference on Learning Representations",
        year=2021,
        category="online",
        updates="parameters",
        needs=frozenset({"gradients"}),
        predicts="before",
        vmappable=True,
        precision=ALL_PRECISIONS,
        parity="online/tent",
        cost="1 forward + 1 backward",
        notes="Collapses on batches of one image, label-sorted streams and long streams without a reset.",
    )
    presets: ClassVar[dict[str, dict[str, Any]]] = {
        "cifar10-c": {"optimizer": "adam", "lr": 1e-3},
        "imagenet-c": {"optimizer": "sgd", "lr": 2.5e-4, "momentum": 0.9},
        "imagenet-c-vit": {"optimizer": "sgd", "lr": 1e-3, "momentum": 0.9},
    }

    def __post_init__(self) -> None:
        """Refuse values outside their range."""
        super().__post_init__()
        if self.steps < 1 or self.window < 1:
            raise BadInputError(f"steps and window must be 1 or more, got {self.steps} and {self.window}")

    def tensors(self, source: SourceModel) -> Tensors:
        """Return the affine tensors of the norm layers of the chosen kinds."""
        return source.normalisation(self.layers)

    def initial_state(self, source: SourceModel) -> State:
        """Return the affine tensors, the optimiser's state and, for a window, an empty one."""
        state = super().initial_state(source)
        if self.window == 1:
            return state
        window = torch.zeros(self.window, *source.image_shape, dtype=source.dtype, device=source.device)
        return {**state, "window": window, "seen": torch.zeros((), dtype=torch.int64, device=source.device)}

    def adapt(self, source: SourceModel, state: State, inputs: Inputs) -> Adapted:
        """Return the state after the updates, with the logits of the pass before the last of them."""
        assert inputs.images is not None
        if self.window > 1:
            return self._slide(source, state, inputs.images)
        return self._descend(source, state, inputs.images)

    def _descend(self, source: SourceModel, state: State, images: Tensor) -> Adapted:
        def loss(params: Tensors) -> tuple[Tensor, Tensor]:
            logits = source.logits(images, params, norm=batch())
            return self.uncertainty(logits).mean(), logits

        for _ in range(self.steps):
            grads, _, logits = gradient(loss, state["params"])
            state = self.moved(state, grads)
        return Adapted(state, logits)

    def _slide(self, source: SourceModel, state: State, images: Tensor) -> Adapted:
        """Put one image into the ring and update on the whole ring each time its last slot is written."""
        if len(images) != 1:
            raise BadInputError(
                f"a window of {self.window} needs batches of one image, got {len(images)}; set batch size 1"
            )
        seen = int(state["seen"])
        slot = seen % self.window
        ring = torch.cat([state["window"][:slot], images, state["window"][slot + 1 :]])
        kept = {**state, "window": ring, "seen": state["seen"] + 1}
        if slot == self.window - 1:
            adapted = self._descend(source, kept, ring)
            assert adapted.logits is not None
            return Adapted(adapted.state, adapted.logits[slot : slot + 1])
        batchnorm = any(layer.kind == "batch" for layer in source.layers)
        context, row = (ring[: min(seen + 1, self.window)], slot) if batchnorm else (images, 0)
        with torch.no_grad():
            logits = source.logits(context, state["params"], norm=batch())
        return Adapted(kept, logits[row : row + 1])
