# SPDX-License-Identifier: Apache-2.0
"""Any classifier whose last layer is linear, taken apart into encoder and head."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tta_bench.errors import IncompatibleError
from tta_bench.models.classes import PARENT, Matched, known_outputs, match_classes
from tta_bench.models.loading import ModelRequest, file_of
from tta_bench.models.source import Network

ORDERED = 10
"""Classes that are told in their order where nothing but the order says which is which."""


class Classifier(Network):
    """A network whose features are whatever enters its linear classifier.

    Args:
        model: Images to logits.
        classes: How many classes the stream has.
        indices: Which labels of the parent set, ImageNet-1k, stand for them, in that order; None: all outputs of the
            model are the classes. Where several stand for one class, its logit is their largest. A model that has as
            many outputs as there are classes, too few for the indices, was trained on just these classes and is taken
            whole. One with other than 1,000 outputs must declare as ``label_outputs`` which output each label of the
            parent set has; positions in another list would be other classes.
    """

    indices: Tensor | None
    shares: Tensor | None

    def __init__(
        self, model: nn.Module, classes: int, indices: Sequence[int | Sequence[int]] | None = None
    ) -> None:
        super().__init__()
        self.model = model
        self._linear = (last_linear(model),)  # in a tuple: it is registered inside the model already
        outputs = self.linear.out_features
        if indices is None and outputs != classes:
            raise IncompatibleError(
                f"the model has {outputs} outputs but the dataset has {classes} classes; choose a model trained "
                "on these classes, or a CLIP-like model, which takes any class names"
            )
        used = outputs_of(indices or ())
        if used and max(used) >= outputs == classes:
            indices, used = None, []
        if used:
            indices = _outputs(model, outputs, indices or ())
        chosen, shares = (None, None) if indices is None else _table(indices)
        self.register_buffer("indices", chosen, persistent=False)
        self.register_buffer("shares", shares, persistent=False)
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
        return self.choose(logits)

    def choose(self, logits: Tensor) -> Tensor:
        """Return the logits (N, K) of the stream's classes among the model's own (N, outputs)."""
        if self.indices is None:
            return logits
        chosen = logits[:, self.indices]
        return chosen if chosen.ndim == 2 else chosen.amax(-1)

    def head_weight(self) -> Tensor:
        """Return the classifier's rows (K, D) of the stream's classes; their mean where a class has several."""
        if self.indices is None:
            return self.linear.weight
        rows = self.linear.weight[self.indices]
        return rows if self.shares is None else (rows * self.shares.to(rows.dtype)[..., None]).sum(1)


def bound(
    model: nn.Module, request: ModelRequest, names: Sequence[str] = (), wnids: Sequence[str] = ()
) -> Classifier:
    """Return a network bound to the classes of a request, whose outputs are found as `match_classes` says.

    Args:
        model: Images to logits.
        request: The classes, and what the user says of the outputs.
        names: Of the outputs in their order, as the library or the file of weights knows them.
        wnids: The same as WordNet ids.

    Raises:
        IncompatibleError: If its outputs are not these classes.
    """
    options, count = request.options, len(request.class_names)
    told = options.class_names or names
    wanted = bool(request.class_folders or options.class_map or options.class_names)
    reordered = sorted(names) == sorted(request.class_names) and tuple(names) != request.class_names
    made = last_linear(model).out_features
    if options.num_classes not in (None, made):
        raise IncompatibleError(
            f"{request.name!r} has {made:,} outputs, got num_classes {options.num_classes}, which is for weights from "
            "a file; leave it out",
            options=("num_classes",),
        )
    if request.class_indices is not None or not (wanted or reordered):
        return Classifier(model, count, request.class_indices)
    outputs = known_outputs(made, told, wnids)
    folders = request.class_folders or request.class_names
    found = match_classes(folders, outputs, options.class_map, repr(request.name))
    if found.indices == tuple(range(outputs.size)):
        network = Classifier(model, count)
    else:
        model.label_outputs = list(range(outputs.size))  # type: ignore[assignment]
        network = Classifier(model, count, found.indices)
    network.binding = binding(found, outputs.size)
    network.cautions = tuple(_cautions(request, found, folders, outputs.size))
    return network


def binding(found: Matched, count: int) -> str:
    """Return how classes were matched with outputs, for the manifest."""
    used = len(outputs_of(found.indices))
    return f"by {found.by}: {used} of {count} outputs"


def _cautions(request: ModelRequest, found: Matched, folders: Sequence[str], count: int) -> Iterator[str]:
    """Yield what a user should check of classes that were matched with outputs."""
    name = request.name.removesuffix(f":{file_of(request.name)}")
    if found.by == "order" and request.pretrained:
        order = ", ".join(folders[:ORDERED]) + (", ..." if len(folders) > ORDERED else "")
        yield (
            f"nothing says what the {count} outputs of {name!r} are, so they are taken to be the classes in "
            f"this order: {order}; if it was trained in another order, name its outputs with class_names=FILE"
        )
    left_out = count - len(outputs_of(found.indices))
    if left_out:
        others = "other output is" if left_out == 1 else f"{left_out:,} other outputs are"
        yield (
            f"the {len(folders)} classes of the dataset are outputs of {name!r} by {found.by}; its {others} left out, "
            "so accuracies are among these classes"
        )


def _outputs(
    model: nn.Module, outputs: int, labels: Sequence[int | Sequence[int]]
) -> Sequence[int | Sequence[int]]:
    """Return the outputs that stand for labels of the parent set, as the model declares them or as ImageNet-1k's.

    Raises:
        IncompatibleError: If the model's outputs are another list of classes.
    """
    declared = getattr(model, "label_outputs", None)
    if declared is None and outputs != PARENT:
        raise IncompatibleError(
            f"the dataset's classes are some of ImageNet-1k's {PARENT:,}, but the model has {outputs:,} outputs, whose "
            "order is another; choose a model with the ImageNet-1k head, or declare label_outputs on it"
        )
    table = range(outputs) if declared is None else [int(one) for one in declared]
    used = outputs_of(labels)
    if max(used) >= len(table) or not all(0 <= table[label] < outputs for label in used):
        raise IncompatibleError(
            f"label_outputs must name one of the model's {outputs:,} outputs for each of the labels {min(used)} to "
            f"{max(used)}, got {len(table)} entries; declare one output per label of the parent set"
        )
    return [table[one] if isinstance(one, int) else [table[label] for label in one] for one in labels]


def outputs_of(indices: Sequence[int | Sequence[int]]) -> list[int]:
    """Return all outputs that stand for some class."""
    return [index for one in indices for index in ([one] if isinstance(one, int) else one)]


def _table(indices: Sequence[int | Sequence[int]]) -> tuple[Tensor, Tensor | None]:
    """Return the outputs of each class: (K,), or (K, M) padded with the class's first, and the shares (K, M)."""
    groups = [[one] if isinstance(one, int) else list(one) for one in indices]
    most = max(map(len, groups))
    if most == 1:
        return torch.tensor([group[0] for group in groups], dtype=torch.int64), None
    padded = [group + group[:1] * (most - len(group)) for group in groups]
    shares = [[1 / len(group)] * len(group) + [0.0] * (most - len(group)) for group in groups]
    return torch.tensor(padded, dtype=torch.int64), torch.tensor(shares, dtype=torch.float64)


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
    heads = [module for module in model.modules() if isinstance(module, nn.Linear)]
    if not heads:
        raise IncompatibleError(
            f"{type(model).__name__} has no linear classifier, which features and prototypes are read from; "
            "choose a model that ends in a linear layer"
        )
    return heads[-1]


@torch.no_grad()
def check_head(network: Classifier, size: tuple[int, int], name: str) -> None:
    """Check on one image that the layer found is what gives the logits: some models have several heads.

    Args:
        network: Put in evaluation mode.
        size: Height and width of the image.
        name: The model's name, for the error.

    Raises:
        IncompatibleError: If the model's own logits are others.
    """
    x = torch.linspace(0, 1, 3 * size[0] * size[1]).reshape(1, 3, *size)
    own = network.choose(network.eval().inner()(x))
    ours = network.head(network.encode(x)[0])
    if own.shape != ours.shape or not torch.allclose(own, ours, rtol=1e-4, atol=1e-5):
        raise IncompatibleError(
            f"{name!r} does not end in one linear layer (it has several heads or works on its logits afterwards), "
            "which features and prototypes are read from; choose another model"
        )
