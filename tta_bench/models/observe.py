# SPDX-License-Identifier: Apache-2.0
"""Look into one forward pass: outputs of chosen layers, and extra tokens in front of a transformer's patches.

Hooks are put on the network for the duration of a call; nothing is computed or kept that was not asked for.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from tta_bench.errors import IncompatibleError, UnknownNameError
from tta_bench.models.layers import RuledBatchNorm
from tta_bench.models.transformer import Transformer
from tta_bench.norms import NormLayer, NormRule, Stats


class Observed(NamedTuple):
    """The result of one observed forward pass.

    Attributes:
        logits: (N, K).
        features: (N, D), what enters the classifier or the comparison with the texts; not normalised.
        outputs: Outputs of the layers asked for, by name: (N, ...), or the class token's (N, D').
        stats: New running statistics by tensor name, where the rule hands them back.
    """

    logits: Tensor
    features: Tensor
    outputs: dict[str, Tensor]
    stats: dict[str, Tensor]


@contextmanager
def watching(
    root: nn.Module, layers: Sequence[str], *, class_token: bool = False
) -> Iterator[tuple[dict[str, Tensor], Callable[[NormRule], NormRule]]]:
    """Keep the outputs of layers while the context lasts.

    A BatchNorm layer's output is taken before the activation that timm fuses behind it.

    Args:
        root: The network whose module names are meant.
        layers: Names of its modules.
        class_token: Whether only the first token of (N, L, D) outputs is kept.

    Yields:
        The outputs by name, filled by each call of the network, and what the rule of that call is to be wrapped in.

    Raises:
        UnknownNameError: If there is no module of a name.
    """
    modules, seen = dict(root.named_modules()), dict[str, Tensor]()
    for name in layers:
        if name not in modules:
            raise UnknownNameError("layer", name, modules)

    def keep(name: str, output: Tensor) -> None:
        taken = output[:, 0] if class_token and output.ndim > 2 else output
        seen[name] = taken.clone()  # an activation behind the layer may work in place

    ruled = {name for name in layers if isinstance(modules[name], RuledBatchNorm)}
    with ExitStack() as stack:
        for name in layers:
            if name not in ruled:
                stack.enter_context(modules[name].register_forward_hook(_keeper(name, keep)))
        yield seen, lambda rule: _watched(rule, ruled, keep) if ruled else rule


def _keeper(name: str, keep: Callable[[str, Tensor], None]) -> Any:
    return lambda module, inputs, output: keep(name, output)


def _watched(rule: NormRule, names: Collection[str], keep: Callable[[str, Tensor], None]) -> NormRule:
    def watched(x: Tensor, layer: NormLayer) -> tuple[Tensor, Stats | None]:
        y, stats = rule(x, layer)
        if layer.name in names:
            keep(layer.name, y)
        return y, stats

    return watched


@contextmanager
def prompting(root: nn.Module, parts: Transformer | None, tokens: Tensor | None, name: str) -> Iterator[None]:
    """Put extra tokens right behind the class token while the context lasts.

    Args:
        root: The network whose module names are meant.
        parts: Its parts.
        tokens: (n, D'), the same for every image; None for none. They get no position.
        name: Of the model, for the error.

    Raises:
        IncompatibleError: If the network has no class token.
    """
    if tokens is None:
        yield
        return
    if parts is None:
        raise IncompatibleError(
            f"prompt tokens need a vision transformer with a class token, which {name!r} is not; choose one, e.g. "
            "timm/vit_small_patch16_224.augreg_in1k"
        )

    def insert(module: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
        x = inputs[0]
        extra = tokens.to(x.dtype).expand(len(x), -1, -1)
        return (torch.cat([x[:, :1], extra, x[:, 1:]], 1), *inputs[1:])

    with root.get_submodule(parts.entry).register_forward_pre_hook(insert):
        yield


@contextmanager
def skipping(root: nn.Module, layers: Sequence[str]) -> Iterator[None]:
    """Let layers hand on what enters them while the context lasts."""
    with ExitStack() as stack:
        for name in layers:
            stack.enter_context(root.get_submodule(name).register_forward_hook(_handed_on))
        yield


def _handed_on(module: nn.Module, inputs: tuple[Any, ...], output: Any) -> Any:
    return inputs[0]
