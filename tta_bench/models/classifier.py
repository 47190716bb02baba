# SPDX-License-Identifier: Apache-2.0
"""Any classifier whose last layer is linear, taken apart into encoder and head."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tta_bench.errors import IncompatibleError
from tta_bench.models.source import Network


class Classifier(Network):
    """A network whose features are whatever enters its linear classifier.

    Args:
        model: Images to logits.
        classes: How many classes the stream has.
        indices: Which outputs of the model stand for them, in that order; None: all of them.
    """

    indices: Tensor | None

    def __init__(self, model: nn.Module, classes: int, indices: Sequence[int] | None = None) -> None:
        super().__init__()
        self.model = model
        self._linear = (last_linear(model),)  # in a tuple: it is registered inside the model already
        outputs = self.linear.out_features
        if indices is None and outputs != classes:
            raise IncompatibleError(
                f"the model has {outputs} outputs but the dataset has {classes} classes; choose a model trained "
                "on these classes, or a CLIP-like model, which takes any class names"
            )
        if indices is not None and not all(0 <= index < outputs for index in indices):
            raise IncompatibleError(
                f"the model has {outputs} outputs but the dataset's classes are its outputs {min(indices)} to "
                f"{max(indices)}; choose a model trained on the class list that the dataset is part of"
            )
        chosen = None if indices is None else torch.tensor(list(indices), dtype=torch.int64)
        self.register_buffer("indices", chosen, persistent=False)
        self._caught = Catcher()
        self.linear.register_forward_pre_hook(self._caught)

    @property
    def linear(self) -> nn.Linear:
        """The classifier layer."""
        return self._linear[0]

    def inner(self) -> nn.Module:
        """Return the model itself."""
        return self.model

    def encode(self, x: Tensor) -> tuple[Tensor, Tensor | None]:
        """Return the classifier's input (N, D), and tokens where the model works on them."""
        model: Any = self.model
        tokens = None
        if hasattr(model, "forward_features") and hasattr(model, "forward_head"):
            maps = model.forward_features(x)
            tokens = maps if isinstance(maps, Tensor) and maps.ndim == 3 else None
            model.forward_head(maps)
        else:
            model(x)
        return self._caught.take(), tokens

    def head(self, features: Tensor) -> Tensor:
        """Return the logits (N, K) of the stream's classes."""
        logits = F.linear(features, self.linear.weight, self.linear.bias)
        return logits if self.indices is None else logits[:, self.indices]

    def head_weight(self) -> Tensor:
        """Return the classifier's rows (K, D) of the stream's classes."""
        return self.linear.weight if self.indices is None else self.linear.weight[self.indices]


class Catcher:
    """A hook that keeps a layer's input until it is taken; an object, so that it is copied with its network."""

    def __init__(self) -> None:
        self._input: Tensor | None = None

    def __call__(self, module: nn.Module, args: tuple[Tensor, ...]) -> None:
        """Keep the first argument of the layer."""
        self._input = args[0]

    def take(self) -> Tensor:
        """Return the input kept last and forget it."""
        seen, self._input = self._input, None
        assert seen is not None, "the classifier layer was not called"
        return seen


def last_linear(model: nn.Module) -> nn.Linear:
    """Return the linear layer that gives the logits: the last one registered.

    Raises:
        IncompatibleError: If there is none.
    """
    found = [module for module in model.modules() if isinstance(module, nn.Linear)]
    if not found:
        raise IncompatibleError(
            f"{type(model).__name__} has no linear classifier, which features and prototypes are read from; "
            "choose a model that ends in a linear layer"
        )
    return found[-1]
