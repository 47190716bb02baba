# SPDX-License-Identifier: Apache-2.0
"""The base of methods that minimise a loss by gradient: the optimiser's hyper-parameters, its state and its step."""

from __future__ import annotations

from dataclasses import dataclass

from tta_bench.errors import IncompatibleError
from tta_bench.method import Method, SourceModel, State, Task
from tta_bench.optim import Descent, Optimizer, Tensors


@dataclass(frozen=True)
class Descending(Method):
    """Adapt tensors of the source model by gradient descent; methods say which tensors, and on which loss.

    Attributes:
        lr: Learning rate.
        optimizer: ``"adam"``, ``"adamw"`` or ``"sgd"``.
        momentum: Of SGD.
        nesterov: Whether SGD's momentum is Nesterov's.
        betas: Decay rates of Adam's moments.
        weight_decay: Coefficient of the L2 term; decoupled in AdamW.
    """

    lr: float = 1e-3
    optimizer: Optimizer = "adam"
    momentum: float = 0.9
    nesterov: bool = False
    betas: tuple[float, float] = (0.9, 0.999)
    weight_decay: float = 0.0

    def __post_init__(self) -> None:
        """Refuse settings outside their range."""
        self.descent()

    def descent(self) -> Descent:
        """Return the optimiser."""
        return Descent(self.optimizer, self.lr, self.momentum, self.nesterov, self.betas, self.weight_decay)

    def tensors(self, source: SourceModel) -> Tensors:
        """Return the tensors that are adapted, by name; the affine ones of all norm layers by default."""
        return source.normalisation()

    def init(self, source: SourceModel, task: Task) -> State:
        """Return the adapted tensors and the optimiser's state.

        Raises:
            IncompatibleError: If the source model has none of the tensors.
        """
        return self.initial_state(source)

    def initial_state(self, source: SourceModel) -> State:
        """Return the first state as far as it does not depend on the task."""
        params = self.tensors(source)
        if not params:
            raise IncompatibleError(
                f"{type(self).__name__} finds nothing to adapt in {source.name!r}, e.g. no affine norm layer of the "
                "chosen kinds; choose another model or other layers"
            )
        return {"params": params, "optimizer": self.descent().init(params)}

    def adapted_tensors(self, source: SourceModel) -> tuple[str, ...]:
        """Return the names of the adapted tensors."""
        return tuple(self.tensors(source))

    def moved(self, state: State, grads: Tensors) -> State:
        """Return the state after one step of the optimiser."""
        params, optimizer = self.descent().step(state["params"], grads, state["optimizer"])
        return {**state, "params": params, "optimizer": optimizer}
