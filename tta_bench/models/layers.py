# SPDX-License-Identifier: Apache-2.0
"""Find a network's layers by type and position, and replace its BatchNorm layers by ones that take a rule."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from tta_bench.norms import NormLayer, NormRule, running

Kind = Literal["batch", "layer", "group", "rms", "conv", "linear", "attention", "embedding"]
NORMS: tuple[Kind, ...] = ("batch", "layer", "group", "rms")
MOST_STAGES = 4


class LayerInfo(NamedTuple):
    """One layer that holds parameters of its own, or BatchNorm, whose statistics can be adapted without any.

    Attributes:
        name: Module name without wrapper prefixes.
        kind: What it computes.
        stage: Position in the network, from 0; a final norm belongs to the last stage.
        stages: How many stages the network has (four at most; blocks of a ViT are grouped in quarters).
        tensors: Full names of its own parameters.
    """

    name: str
    kind: Kind
    stage: int
    stages: int
    tensors: tuple[str, ...]


class Slot:
    """The rule of the call under way, and the statistics that its layers handed back."""

    def __init__(self) -> None:
        self.rule: NormRule = running()
        self.stats: dict[str, Tensor] = {}


class RuledBatchNorm(nn.Module):
    """A BatchNorm layer with the same tensors that asks the rule of the call how to normalise.

    In training mode the library's layer writes its running statistics in place, also through
    ``functional_call``; this one never writes. ``drop`` and ``act`` keep what timm fuses behind a norm.
    """

    weight: Tensor | None
    bias: Tensor | None
    running_mean: Tensor
    running_var: Tensor

    def __init__(self, old: nn.modules.batchnorm._BatchNorm, name: str, slot: Slot) -> None:
        super().__init__()
        self.name, self.slot = name, slot
        self.eps, self.momentum = old.eps, 0.1 if old.momentum is None else old.momentum
        self.num_features = old.num_features
        self.register_parameter("weight", old.weight)
        self.register_parameter("bias", old.bias)
        for key in ("running_mean", "running_var", "num_batches_tracked"):
            self.register_buffer(key, getattr(old, key))
        self.drop = getattr(old, "drop", None)
        self.act = getattr(old, "act", None)
        self._old = (old,)  # shares the tensors; in a tuple, so that it is no sub-module

    def forward(self, x: Tensor) -> Tensor:
        """Normalise (N, C, *) by the rule of the call under way."""
        layer = NormLayer(
            self.name, self.running_mean, self.running_var, self.weight, self.bias, self.eps, self.momentum
        )
        y, stats = self.slot.rule(x, layer)
        if stats is not None:
            self.slot.stats[f"{self.name}.running_mean"] = stats.mean
            self.slot.stats[f"{self.name}.running_var"] = stats.var
        if self.drop is not None:
            y = self.drop(y)
        return y if self.act is None else self.act(y)


def install_rules(root: nn.Module, slot: Slot) -> None:
    """Replace every BatchNorm layer that stores statistics, in place, keeping all tensor names."""
    for name, module in list(root.named_modules()):
        if isinstance(module, nn.modules.batchnorm._BatchNorm) and module.running_mean is not None:
            parent, _, leaf = name.rpartition(".")
            setattr(root.get_submodule(parent), leaf, RuledBatchNorm(module, name, slot))


def without_statistics(root: nn.Module) -> list[str]:
    """Return the names of the BatchNorm layers that store no statistics and normalise by the batch always."""
    return [name for name, one in root.named_modules() if isinstance(one, nn.modules.batchnorm._BatchNorm)]


def remove_rules(root: nn.Module) -> None:
    """Put the library's own BatchNorm layers back, in place, with the tensors that the ruled ones hold."""
    for name, module in list(root.named_modules()):
        if isinstance(module, RuledBatchNorm):
            parent, _, leaf = name.rpartition(".")
            setattr(root.get_submodule(parent), leaf, module._old[0])


def kind_of(module: nn.Module) -> Kind | None:
    """Return what kind of layer a module is by its type, None for containers and everything else."""
    if isinstance(module, RuledBatchNorm | nn.modules.batchnorm._BatchNorm):
        return "batch"
    if isinstance(module, nn.GroupNorm):
        return "group"
    if isinstance(module, nn.LayerNorm):
        return "layer"
    if isinstance(module, nn.RMSNorm) or type(module).__name__.lower().startswith("rmsnorm"):
        return "rms"
    if isinstance(module, nn.MultiheadAttention):
        return "attention"
    if isinstance(module, nn.Linear):
        return "linear"
    if isinstance(module, nn.modules.conv._ConvNd):
        return "conv"
    return "embedding" if isinstance(module, nn.Embedding) else None


def list_layers(root: nn.Module) -> tuple[LayerInfo, ...]:
    """Return the layers of a network with their stages, in registration order."""
    starts = {id(group): index for index, group in enumerate(_groups(root))}
    stages = min(len(starts), MOST_STAGES) or 1
    found: list[LayerInfo] = []
    current = 0
    for name, module in root.named_modules():
        if id(module) in starts:
            index = starts[id(module)]
            current = index if len(starts) <= MOST_STAGES else index * MOST_STAGES // len(starts)
        kind = kind_of(module)
        own = tuple(f"{name}.{leaf}" if name else leaf for leaf, _ in module.named_parameters(recurse=False))
        if kind is not None and (own or isinstance(module, RuledBatchNorm)):
            found.append(LayerInfo(name, kind, current, stages, own))
    return tuple(found)


def _norm_count(module: nn.Module) -> int:
    return sum(kind_of(child) in NORMS for child in module.modules())


def _groups(root: nn.Module) -> Sequence[nn.Module]:
    """Return the repeated parts that make a network's depth: residual stages, or transformer blocks.

    They are the first siblings of one type, three or more, that hold half of the norms below their parent;
    networks of two blocks are found by a second search. None are found in a plain chain of layers.
    """
    for least in (3, 2):
        node: nn.Module | None = root
        while node is not None:
            holders = [child for child in node.children() if _norm_count(child)]
            by_type: dict[type, list[nn.Module]] = {}
            for child in holders:
                if kind_of(child) is None:
                    by_type.setdefault(type(child), []).append(child)
            total = sum(_norm_count(child) for child in holders)
            for group in sorted(by_type.values(), key=lambda g: -sum(map(_norm_count, g))):
                if len(group) >= least and 2 * sum(map(_norm_count, group)) >= total:
                    return group
            node = max(holders, key=_norm_count, default=None)
    return []


def keep_type(root: nn.Module, dtype: torch.dtype) -> None:
    """Let every norm layer compute in a floating type, in place, whatever type comes in."""
    for module in root.modules():
        if kind_of(module) in NORMS:
            module.register_forward_pre_hook(lambda _, inputs: (inputs[0].to(dtype), *inputs[1:]))


@contextmanager
def plain_attention() -> Iterator[None]:
    """Compute attention operation by operation: fused kernels have no rule for ``vmap`` and hide their work."""
    fused = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with sdpa_kernel(SDPBackend.MATH):
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fused)


def freeze(root: nn.Module) -> None:
    """Put a network in evaluation mode for good: no gradients, no dropout, no stochastic depth."""
    root.eval()
    for parameter in root.parameters():
        parameter.requires_grad_(False)


def own_tensors(root: nn.Module) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Return parameters and buffers by name, detached."""
    params = {name: p.detach() for name, p in root.named_parameters()}
    buffers = {name: b.detach() for name, b in root.named_buffers() if isinstance(b, torch.Tensor)}
    return params, buffers
