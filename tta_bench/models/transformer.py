# SPDX-License-Identifier: Apache-2.0
"""Find the parts of a vision transformer with a class token, whichever library built it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

from torch import nn


class Transformer(NamedTuple):
    """The parts of a vision transformer with a class token and pre-norm blocks; layers go by their module names.

    Attributes:
        width: Of a token.
        patch: Height and width of a patch, pixels.
        entry: The module whose input is the class token and the patches with their positions; extra tokens enter
            there, right behind the class token.
        norms: For each block the layer that normalises its output: the first norm of the next block, and for the
            last block the final norm.
        blocks: The blocks, in order.
        early: The norm layers before the first attention, where the class token is the same for every image.
    """

    width: int
    patch: tuple[int, int]
    entry: str
    norms: tuple[str, ...]
    blocks: tuple[str, ...]
    early: tuple[str, ...]


class Layout(NamedTuple):
    """Module names of these parts in one library."""

    blocks: str
    entry: str
    first_norm: str
    final_norm: str
    class_token: str
    patches: str


LAYOUTS = {
    "timm": Layout("blocks", "norm_pre", "norm1", "norm", "cls_token", "patch_embed.proj"),
    "torchvision": Layout(
        "encoder.layers", "encoder.layers", "ln_1", "encoder.ln", "class_token", "conv_proj"
    ),
    "open_clip": Layout("transformer.resblocks", "ln_pre", "ln_1", "ln_post", "class_embedding", "conv1"),
    "plain": Layout("blocks", "blocks", "ln_1", "norm", "class_embedding", "conv1"),
}
CLASS_TOKEN = {"global_pool": ("token",), "pool_type": ("tok",), "attn_pool": (None,)}
"""Attributes by which the libraries say how tokens are pooled, and what they must be where they are there."""


def find_transformer(root: nn.Module) -> Transformer | None:
    """Return the parts of a vision transformer whose feature is its class token; None for any other network."""
    for prefix in ("", "trunk."):  # open_clip holds the networks that it takes from timm in a trunk
        owner: Any = _part(root, prefix.rstrip("."))
        if owner is None or not _pools_the_class_token(owner):
            continue
        for layout in LAYOUTS.values():
            if _fits(owner, layout):
                return _described(owner, layout, prefix)
    return None


def _part(root: Any, path: str) -> Any:
    for name in filter(None, path.split(".")):
        root = getattr(root, name, None)
    return root


def _pools_the_class_token(owner: Any) -> bool:
    pooled = (getattr(owner, name, allowed[0]) in allowed for name, allowed in CLASS_TOKEN.items())
    return all(pooled) and bool(getattr(_part(owner, "transformer"), "batch_first", True))


def _fits(owner: Any, layout: Layout) -> bool:
    needed = (layout.entry, layout.final_norm, layout.class_token, layout.patches)
    if any(_part(owner, path) is None for path in needed):
        return False
    blocks = list(_blocks(owner, layout))
    return bool(blocks) and all(_pre_norm(block, layout.first_norm) for _, block in blocks)


def _blocks(owner: Any, layout: Layout) -> Iterator[tuple[str, nn.Module]]:
    found = _part(owner, layout.blocks)
    if isinstance(found, nn.Sequential | nn.ModuleList):
        yield from ((f"{layout.blocks}.{name}", block) for name, block in found.named_children())


def _pre_norm(block: nn.Module, first_norm: str) -> bool:
    """Return whether a block's first norm precedes its attention, as in every class but timm's post-norm ones."""
    return isinstance(getattr(block, first_norm, None), nn.Module) and "Post" not in type(block).__name__


def _described(owner: Any, layout: Layout, prefix: str) -> Transformer:
    firsts = [f"{prefix}{name}.{layout.first_norm}" for name, _ in _blocks(owner, layout)]
    patches = _part(owner, layout.patches)
    height, width = patches.kernel_size
    return Transformer(
        width=patches.out_channels,
        patch=(height, width),
        entry=prefix + layout.entry,
        norms=(*firsts[1:], prefix + layout.final_norm),
        blocks=tuple(prefix + name for name, _ in _blocks(owner, layout)),
        early=(prefix + layout.entry, firsts[0]),
    )
