# SPDX-License-Identifier: Apache-2.0
"""ZeroSiam: entropy minimisation through a learnt projector, held near the branch without it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch
from torch import Tensor

from tta_bench.errors import BadInputError
from tta_bench.losses import entropy, soft_cross_entropy
from tta_bench.method import ALL_PRECISIONS, Adapted, Card, Inputs, SourceModel, State
from tta_bench.norms import batch
from tta_bench.optim import Optimizer, Tensors, gradient

from ._descent import Descending

PROJECTOR = "projector"


@dataclass(frozen=True)
class ZeroSiam(Descending):
    """Minimise the entropy of a projected branch and its divergence from the branch that predicts.

    ``z = head(f)`` predicts and ``z' = head(Q f)`` learns, with a square projector Q that starts as the identity:
    ``loss = mean_i [H(q_i) + KL(p_i, q_i) + KL(q_i, p_i)]``, ``p = softmax(z)`` constant, ``q = softmax(z')``. The
    affine tensors of all norm layers and Q take a step, each with an optimiser of its own.

    Source: Chen et al., ICLR 2026, arXiv:2509.23183, as the port in tempora has it; the official code could not be had.
    Differs: works on models with BatchNorm too, by the statistics of the batch; a reset clears both momenta and Q;
    logits, where the port gives probabilities; dropout and stochastic depth are off.

    Attributes:
        projector_lr: Learning rate of the projector.
        reforward: Predict by one more pass, with the norm layers after the step.
    """

    lr: float = 0.0025
    optimizer: Optimizer = "sgd"
    projector_lr: float = 0.025
    reforward: bool = False

    card: ClassVar[Card] = Card(
        paper="arXiv:2509.23183",
        title="ZeroSiam: An Efficient Siamese for Test-Time Entropy Optimization without Collapse",
        authors="Chen, Guohao and Niu, Shuaicheng and Chen, Deyu and Yang, Jiahao and Zhang, Zitian and Tan, "
        "Mingkui and Wu, Pengcheng and Shen, Zhiqi",
        venue="International Conference on Learning Representations",
        year=2026,
        category="online",
        updates="parameters",
        needs=frozenset({"gradients"}),
        predicts="before",
        model="pocket-gn",
        vmappable=True,
        precision=ALL_PRECISIONS,
        parity="online/zerosiam",
        cost="1 forward + 1 backward",
        reference_licence="MIT",
        notes="Made for models without BatchNorm. With reforward the logits are those after the update.",
    )
    presets: ClassVar[dict[str, dict[str, Any]]] = {
        "imagenet-c": {"lr": 0.0025, "projector_lr": 0.025},
        "imagenet-c-vit": {"lr": 0.005, "projector_lr": 0.005},
    }

    def __post_init__(self) -> None:
        """Refuse values outside their range."""
        super().__post_init__()
        if not 0 <= self.projector_lr < float("inf"):
            raise BadInputError(f"projector_lr must be a number of 0 or more, got {self.projector_lr}")

    def initial_state(self, source: SourceModel) -> State:
        """Return the first state: the projector is the identity."""
        projector = {PROJECTOR: torch.eye(source.dim, dtype=source.dtype, device=source.device)}
        return {
            **super().initial_state(source), **projector,
            "projector_optimizer": self.descent().init(projector),
        }  # fmt: skip

    def adapt(self, source: SourceModel, state: State, inputs: Inputs) -> Adapted:
        """Return the state after one step, and the logits before it or, with `reforward`, none."""
        images = inputs.images
        assert images is not None

        def loss(tensors: Tensors) -> tuple[Tensor, Tensor]:
            params = {name: tensors[name] for name in state["params"]}
            features = source.encode(images, params, norm=batch())
            plain = source.head(features).detach()
            made = source.head(features @ tensors[PROJECTOR].T)
            apart = soft_cross_entropy(plain, made) - entropy(plain) + soft_cross_entropy(made, plain)
            return apart.mean(), plain  # the entropies of the learning branch cancel

        grads, _, logits = gradient(loss, {**state["params"], PROJECTOR: state[PROJECTOR]})
        moved = self.moved(state, grads)
        descent = replace(self.descent(), lr=self.projector_lr)
        own = {PROJECTOR: state[PROJECTOR]}
        projector, optimizer = descent.step(own, grads, state["projector_optimizer"])
        after = {**moved, **projector, "projector_optimizer": optimizer}
        return Adapted(after) if self.reforward else Adapted(after, logits)

    def predict(self, source: SourceModel, state: State, inputs: Inputs) -> Tensor:
        """Return the logits (N, K) under the norm layers after the step, without the projector."""
        assert inputs.images is not None
        return source.logits(inputs.images, state["params"], norm=batch())
