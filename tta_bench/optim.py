# SPDX-License-Identifier: Apache-2.0
"""Gradients and optimisers as pure functions: tensors in, new tensors out, nothing written in place.

Each optimiser takes ``params`` and ``grads`` by name and the state that it returned last (`adam_init` or
`sgd_init` first), and returns new parameters and a new state. State leaves are tensors, so the state can be
saved, compared and batched by ``vmap``. `Descent` is the optimiser that a method's hyper-parameters name.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

import torch
from torch import Tensor

from tta_bench.errors import BadInputError

Aux = TypeVar("Aux")
Tensors = dict[str, Tensor]
Optimizer = Literal["adam", "adamw", "sgd"]
_FUNCTIONAL: ContextVar[bool] = ContextVar("functional", default=False)


@contextmanager
def functional() -> Iterator[None]:
    """Take gradients by ``torch.func`` inside this context, as ``vmap`` needs."""
    token = _FUNCTIONAL.set(True)
    try:
        yield
    finally:
        _FUNCTIONAL.reset(token)


def gradient(
    loss: Callable[[Tensors], tuple[Tensor, Aux]], params: Mapping[str, Tensor]
) -> tuple[Tensors, Tensor, Aux]:
    """Return the gradient of a loss with respect to named tensors.

    Plain autograd on detached leaves costs what an imperative loop costs; ``torch.func`` is used only where
    ``vmap`` leaves no choice, and by ``vjp``, because ``grad`` would record the backward pass too.

    Args:
        loss: Maps the tensors to a scalar loss and auxiliary tensors.
        params: The tensors to differentiate by.

    Returns:
        The gradients by name (zeros where a tensor does not enter the loss; no backward pass is run where none
        does), the detached loss, and the auxiliary tensors, detached.
    """
    if _FUNCTIONAL.get():
        value, pull, aux = torch.func.vjp(loss, dict(params), has_aux=True)  # type: ignore[misc]
        with torch.no_grad():
            (grads,) = pull(torch.ones_like(value))
        return grads, value, aux
    leaves = {name: tensor.detach().requires_grad_() for name, tensor in params.items()}
    with torch.enable_grad():
        value, aux = loss(leaves)
    if not value.requires_grad:
        return {name: torch.zeros_like(p) for name, p in params.items()}, value, _detached(aux)
    gradients = torch.autograd.grad(value, list(leaves.values()), allow_unused=True)
    zeroed = (
        torch.zeros_like(p) if g is None else g for p, g in zip(leaves.values(), gradients, strict=True)
    )
    return dict(zip(leaves, zeroed, strict=True)), value.detach(), _detached(aux)


def _detached(aux: Any) -> Any:
    return torch.utils._pytree.tree_map(lambda x: x.detach() if isinstance(x, Tensor) else x, aux)


def widest(device: torch.device) -> torch.dtype:
    """Return the widest floating type of a device: float64, which only mps does not have."""
    return torch.float32 if device.type == "mps" else torch.float64


def adam_init(params: Mapping[str, Tensor]) -> dict[str, Any]:
    """Return Adam's state before the first step: zero moments and a step count of 0."""
    zeros = {name: torch.zeros_like(p) for name, p in params.items()}
    step = torch.zeros((), dtype=torch.int64, device=_device(params))
    return {"step": step, "m": zeros, "v": {name: torch.zeros_like(p) for name, p in params.items()}}


def adam(
    params: Mapping[str, Tensor],
    grads: Mapping[str, Tensor],
    state: Mapping[str, Any],
    *,
    lr: float,
    betas: tuple[float, float] = (0.9, 0.999),
    eps: float = 1e-8,
    weight_decay: float = 0.0,
    decoupled: bool = False,
) -> tuple[Tensors, dict[str, Any]]:
    """Take one step of Adam, or of AdamW where the weight decay is decoupled.

    Args:
        params: Tensors by name.
        grads: Their gradients by the same names.
        state: From `adam_init` or the last step.
        lr: Learning rate.
        betas: Decay rates of the two moments.
        eps: Added to the root of the second moment.
        weight_decay: Coefficient of the L2 term.
        decoupled: Whether the decay acts on the weights (AdamW) and not through the gradient (Adam).

    Source: arXiv:1412.6980, algorithm 1; arXiv:1711.05101 for the decoupled decay.
    """
    step = state["step"] + 1
    exact = step if widest(step.device) == torch.float64 else step.cpu()
    count = exact.to(torch.float64)  # float32 bias corrections would be visible after a few steps
    size = lr / (1 - torch.pow(betas[0], count))
    root = torch.sqrt(1 - torch.pow(betas[1], count))
    new, m, v = {}, {}, {}
    for name, p in params.items():
        g = grads[name]
        if weight_decay and not decoupled:
            g = g + weight_decay * p
        m[name] = torch.lerp(state["m"][name], g, 1 - betas[0])
        v[name] = (state["v"][name] * betas[1]).addcmul(g, g, value=1 - betas[1])
        kept = p * (1 - lr * weight_decay) if weight_decay and decoupled else p
        new[name] = kept - size.to(p.dtype) * m[name] / (v[name].sqrt() / root.to(p.dtype) + eps)
    return new, {"step": step, "m": m, "v": v}


def sgd_init(params: Mapping[str, Tensor]) -> dict[str, Any]:
    """Return SGD's state before the first step: a zero momentum buffer."""
    return {"momentum": {name: torch.zeros_like(p) for name, p in params.items()}}


def sgd(
    params: Mapping[str, Tensor],
    grads: Mapping[str, Tensor],
    state: Mapping[str, Any],
    *,
    lr: float,
    momentum: float = 0.0,
    nesterov: bool = False,
    weight_decay: float = 0.0,
) -> tuple[Tensors, dict[str, Any]]:
    """Take one step of stochastic gradient descent.

    Args:
        params: Tensors by name.
        grads: Their gradients by the same names.
        state: From `sgd_init` or the last step.
        lr: Learning rate.
        momentum: Share of the buffer that is kept; the buffer is ``momentum * buffer + g``.
        nesterov: Whether the step is ``g + momentum * buffer``.
        weight_decay: Coefficient of the L2 term.
    """
    decayed = {
        name: grads[name] + weight_decay * p if weight_decay else grads[name] for name, p in params.items()
    }
    if not momentum:
        return {name: p - lr * decayed[name] for name, p in params.items()}, dict(state)
    new, buffers = {}, {}
    for name, p in params.items():
        g = decayed[name]
        buffers[name] = state["momentum"][name] * momentum + g
        new[name] = p - lr * (g + momentum * buffers[name] if nesterov else buffers[name])
    return new, {"momentum": buffers}


@dataclass(frozen=True)
class Descent:
    """An optimiser chosen by name, with its settings.

    Attributes:
        name: ``"adam"``, ``"adamw"`` or ``"sgd"``.
        lr: Learning rate.
        momentum: Of SGD.
        nesterov: Whether SGD's momentum is Nesterov's.
        betas: Decay rates of Adam's moments.
        weight_decay: Coefficient of the L2 term; decoupled in AdamW.
        eps: Added to the root of Adam's second moment.
    """

    name: Optimizer
    lr: float
    momentum: float = 0.9
    nesterov: bool = False
    betas: tuple[float, float] = (0.9, 0.999)
    weight_decay: float = 0.0
    eps: float = 1e-8

    def __post_init__(self) -> None:
        """Refuse an unknown name and settings outside their range."""
        if self.name not in ("adam", "adamw", "sgd"):
            raise BadInputError(
                f"optimizer must be 'adam', 'adamw' or 'sgd', got {self.name!r}; choose one of them"
            )
        for name, value in (
            ("lr", self.lr),
            ("momentum", self.momentum),
            ("weight_decay", self.weight_decay),
        ):
            if not 0 <= value < float("inf"):
                raise BadInputError(f"{name} must be a number of 0 or more, got {value}")
        if not all(0 <= beta < 1 for beta in self.betas):
            raise BadInputError(f"betas must lie in [0, 1), got {self.betas}")

    def init(self, params: Mapping[str, Tensor]) -> dict[str, Any]:
        """Return the state before the first step; SGD without momentum keeps none."""
        if self.name != "sgd":
            return adam_init(params)
        return sgd_init(params if self.momentum else {})

    def step(
        self, params: Mapping[str, Tensor], grads: Mapping[str, Tensor], state: Mapping[str, Any]
    ) -> tuple[Tensors, dict[str, Any]]:
        """Return the parameters and the state after one step."""
        if self.name == "sgd":
            return sgd(
                params, grads, state, lr=self.lr, momentum=self.momentum, nesterov=self.nesterov,
                weight_decay=self.weight_decay,
            )  # fmt: skip
        return adam(
            params, grads, state, lr=self.lr, betas=self.betas, eps=self.eps, weight_decay=self.weight_decay,
            decoupled=self.name == "adamw",
        )  # fmt: skip


def ema(average: Mapping[str, Tensor], current: Mapping[str, Tensor], *, keep: float | Tensor) -> Tensors:
    """Return the moving average ``keep * average + (1 - keep) * current`` of tensors by name."""
    return {name: old * keep + (1 - keep) * current[name] for name, old in average.items()}


def sam_ascent(params: Mapping[str, Tensor], grads: Mapping[str, Tensor], *, rho: float) -> Tensors:
    """Return the parameters at a distance ``rho`` along the gradient, taken over all tensors together.

    Source: sharpness-aware minimisation, arXiv:2010.01412, eq. 2; the norm is guarded by 1e-12.
    """
    squares = [grads[name].square().sum() for name in params]
    scale = rho / (torch.stack(squares).sum().sqrt() + 1e-12)
    return {name: p + scale * grads[name] for name, p in params.items()}


def _device(params: Mapping[str, Tensor]) -> torch.device:
    return next((p.device for p in params.values()), torch.device("cpu"))
