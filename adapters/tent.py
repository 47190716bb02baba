# SPDX-License-Identifier: Apache-2.0
"""TENT: minimise the entropy of the predictions through the affine tensors of the normalisation layers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from tta_bench.errors import BadInputError, IncompatibleError
from tta_bench.losses import entropy
from tta_bench.method import Adapted, Card, Inputs, Method, SourceModel, State, Task
from tta_bench.norms import batch
from tta_bench.optim import Tensors, adam, adam_init, gradient, sgd, sgd_init


@dataclass(frozen=True)
class Tent(Method):
    """Minimise the entropy of each batch's predictions over the affine tensors of the norm layers.

    ``loss = mean_i H(softmax(z_i))``; the logits are those of the forward pass before the (last) update, and
    BatchNorm layers normalise by the batch in every pass.

    Source: Wang et al., ICLR 2021, arXiv:2006.10726; the sliding window is an addition of the
    test-time-adaptation benchmark of Doebler et al. for batches of one image.
    Differs: dropout and stochastic depth are off, and a reset empties the window.

    Attributes:
        lr: Learning rate.
        optimizer: ``"adam"`` or ``"sgd"``.
        momentum: Of SGD.
        nesterov: Whether SGD's momentum is Nesterov's.
        betas: Decay rates of Adam's moments.
        weight_decay: Coefficient of the L2 term in the gradient.
        steps: Updates for each batch.
        layers: Kinds of norm layers whose affine tensors are adapted.
        window: Images in the sliding window; 1 adapts on each batch as it comes.
    """

    lr: float = 1e-3
    optimizer: Literal["adam", "sgd"] = "adam"
    momentum: float = 0.9
    nesterov: bool = False
    betas: tuple[float, float] = (0.9, 0.999)
    weight_decay: float = 0.0
    steps: int = 1
    layers: tuple[Literal["batch", "layer", "group", "rms"], ...] = ("batch", "layer", "group", "rms")
    window: int = 1

    card: ClassVar[Card] = Card(
        paper="arXiv:2006.10726",
        title="Tent: Fully Test-Time Adaptation by Entropy Minimization",
        needs=frozenset({"gradients"}),
        predicts="before",
        vmappable=True,
        parity="online/tent",
        notes="Collapses on batches of one image, label-sorted streams and long streams without a reset.",
    )
    presets: ClassVar[dict[str, dict[str, Any]]] = {
        "cifar10-c": {"optimizer": "adam", "lr": 1e-3},
        "imagenet-c": {"optimizer": "sgd", "lr": 2.5e-4, "momentum": 0.9},
        "imagenet-c-vit": {"optimizer": "sgd", "lr": 1e-3, "momentum": 0.9},
    }

    def __post_init__(self) -> None:
        """Refuse values outside their range."""
        if self.optimizer not in ("adam", "sgd"):
            raise BadInputError(
                f"optimizer must be 'adam' or 'sgd', got {self.optimizer!r}; choose one of them"
            )
        if self.steps < 1 or self.window < 1:
            raise BadInputError(f"steps and window must be 1 or more, got {self.steps} and {self.window}")

    def init(self, source: SourceModel, task: Task) -> State:
        """Return the affine tensors, the optimiser's state and, for a window, an empty one."""
        params = source.normalisation(self.layers)
        if not params:
            raise IncompatibleError(
                f"layers={','.join(self.layers)} finds no affine norm layer in {source.name!r}; "
                "choose other kinds of layers or another model"
            )
        start = adam_init if self.optimizer == "adam" else sgd_init
        state: dict[str, Any] = {"params": params, "optimizer": start(params)}
        if self.window > 1:
            shape = (self.window, *source.image_shape)
            state["window"] = torch.zeros(shape, dtype=source.dtype, device=source.device)
            state["seen"] = torch.zeros((), dtype=torch.int64, device=source.device)
        return state

    def adapt(self, source: SourceModel, state: State, inputs: Inputs) -> Adapted:
        """Return the state after the updates, with the logits of the pass before the last of them."""
        assert inputs.images is not None
        if self.window > 1:
            return self._slide(source, state, inputs.images)
        return self._descend(source, state, inputs.images)

    def adapts(self, source: SourceModel) -> tuple[str, ...]:
        """Return the names of the affine tensors."""
        return tuple(source.normalisation(self.layers))

    def _descend(self, source: SourceModel, state: State, images: Tensor) -> Adapted:
        def loss(params: Tensors) -> tuple[Tensor, Tensor]:
            logits = source.logits(images, params, norm=batch())
            return entropy(logits).mean(), logits

        params, optimizer = state["params"], state["optimizer"]
        for _ in range(self.steps):
            grads, _, logits = gradient(loss, params)
            params, optimizer = self._update(params, grads, optimizer)
        return Adapted({**state, "params": params, "optimizer": optimizer}, logits)

    def _update(self, params: Tensors, grads: Tensors, state: State) -> tuple[Tensors, State]:
        if self.optimizer == "adam":
            decay = self.weight_decay
            return adam(params, grads, state, lr=self.lr, betas=self.betas, weight_decay=decay)
        nesterov, decay = self.nesterov, self.weight_decay
        return sgd(
            params, grads, state, lr=self.lr, momentum=self.momentum, nesterov=nesterov, weight_decay=decay
        )

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
