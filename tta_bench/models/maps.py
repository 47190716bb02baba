# SPDX-License-Identifier: Apache-2.0
"""Maps of features inside an image network, layer by layer: a transformer's tokens on their grid, or feature maps.

A layer is handed over while the network runs and kept by nobody, so one layer's maps are in memory at a time.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from tta_bench.errors import BadInputError, IncompatibleError

Visit = Callable[[int, Tensor], None]
"""Takes the index of a layer and its maps (N, H, W, D)."""

BLOCKS = ("blocks", "trunk.blocks", "encoder.layers", "transformer.resblocks")
"""Where the libraries keep a transformer's blocks."""


class MapLayer(NamedTuple):
    """One layer whose output has a place for every location of the image.

    Attributes:
        name: Of its module.
        prefix: Tokens in front of the patches: the class token and registers.
    """

    name: str
    prefix: int = 0


def map_layers(root: nn.Module) -> tuple[MapLayer, ...]:
    """Return the layers of a network that have a grid of locations, from the image on.

    These are the blocks of a vision transformer, the stages that timm names, or else the parts of a plain chain of
    convolutions.
    """
    for path in BLOCKS:
        blocks = _part(root, path)
        if isinstance(blocks, nn.Sequential | nn.ModuleList) and _holds_attention(blocks):
            owner = _part(root, "trunk") if path.startswith("trunk.") else root
            prefix = _prefix(owner)
            return tuple(MapLayer(f"{path}.{name}", prefix) for name, _ in blocks.named_children())
    for path in ("", "trunk."):
        stages = getattr(_part(root, path.rstrip(".")), "feature_info", None)
        if isinstance(stages, list) and all("module" in stage for stage in stages):
            return tuple(MapLayer(f"{path}{stage['module']}") for stage in stages)
    return tuple(MapLayer(name) for name in _chain(root))


def visit_maps(
    root: nn.Module,
    layers: Sequence[MapLayer],
    run: Callable[[], object],
    visit: Visit,
    name: str,
    stop: bool = False,
) -> None:
    """Run a network and hand over the maps of its layers, one after the other.

    Args:
        root: The network whose module names are meant.
        layers: Those to hand over.
        run: Runs it on images.
        visit: Called within the forward pass with the layer's index in `layers`; what it gets must not be kept.
        name: Of the model, for the error.
        stop: Whether the pass may end behind the last layer.

    Raises:
        IncompatibleError: If the output of a layer has no grid of locations.
    """

    def hook(index: int, layer: MapLayer) -> Callable[[nn.Module, Any, Any], None]:
        def handed(module: nn.Module, inputs: Any, output: Any) -> None:
            visit(index, _grid(output, layer, module, name))
            if stop and index == len(layers) - 1:
                raise _EnoughError

        return handed

    with ExitStack() as stack:
        for index, layer in enumerate(layers):
            module = root.get_submodule(layer.name)
            stack.enter_context(module.register_forward_hook(hook(index, layer)))
        try:
            with torch.no_grad():
                run()
        except _EnoughError:
            return


class _EnoughError(Exception):
    """End a forward pass whose rest nobody needs."""


def chosen_layers(layers: Sequence[MapLayer], wanted: Sequence[int] | None, name: str) -> tuple[int, ...]:
    """Return the indices of the layers that are wanted; negative ones count from the last layer.

    Raises:
        IncompatibleError: If the model has no layer with a grid of locations.
        BadInputError: If there is no layer of an index.
    """
    if not layers:
        raise IncompatibleError(
            f"islands need a model whose layers have a grid of locations, which {name!r} has not; choose a vision "
            "transformer or a convolutional network"
        )
    count = len(layers)
    for index in wanted or ():
        if not -count <= index < count:
            raise BadInputError(
                f"{name!r} has layers 0 to {count - 1}, got {index}; choose among them or take all"
            )
    return tuple(sorted({index % count for index in wanted})) if wanted else tuple(range(count))


def _part(root: Any, path: str) -> Any:
    for name in filter(None, path.split(".")):
        root = getattr(root, name, None)
    return root


def _holds_attention(blocks: nn.Module) -> bool:
    return any("attention" in type(module).__name__.lower() for module in blocks.modules())


def _prefix(owner: Any) -> int:
    """Return how many tokens stand in front of the patches."""
    timm = getattr(owner, "num_prefix_tokens", None)
    return int(timm) if timm is not None else 1


def _chain(root: nn.Module) -> Iterator[str]:
    """Yield the children of the network's chains, and activations of its stem, that can have feature maps."""
    for name, child in root.named_children():
        if isinstance(child, nn.Sequential | nn.ModuleList) and _convolves(child):
            yield from (f"{name}.{part}" for part, inner in child.named_children() if _convolves(inner))
        elif "trunk" in name or "features" in name:
            yield from (f"{name}.{part}" for part in _chain(child))
        elif "act" in name:
            yield name


def _convolves(module: nn.Module) -> bool:
    return any(isinstance(part, nn.Conv2d) for part in module.modules())


def _grid(output: Any, layer: MapLayer, module: nn.Module, name: str) -> Tensor:
    """Return the output of a layer as maps (N, H, W, D); of a video the first frame."""
    if isinstance(output, tuple) and len(output) == 2 and isinstance(output[1], tuple):
        tokens, (frames, height, width) = output
        return torch.unflatten(tokens[:, 1:], 1, (frames, height, width))[:, 0]
    if isinstance(output, Tensor) and output.ndim == 4:
        last = output.shape[1] == output.shape[2] and output.shape[3] != output.shape[2]
        return output if last else output.permute(0, 2, 3, 1)
    if isinstance(output, Tensor) and output.ndim == 3:
        patches = output[:, layer.prefix :]
        side = math.isqrt(patches.shape[1])
        if side * side == patches.shape[1]:
            return torch.unflatten(patches, 1, (side, side))
    shape = tuple(output.shape) if isinstance(output, Tensor) else type(output).__name__
    raise IncompatibleError(
        f"layer {layer.name!r} of {name!r} should give a grid of locations and gives {shape}; choose other layers"
    )
