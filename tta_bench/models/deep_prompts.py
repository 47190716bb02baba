# SPDX-License-Identifier: Apache-2.0
"""Prompt tokens inside a transformer: replace some tokens at the inputs of its blocks, and keep these inputs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from tta_bench.errors import IncompatibleError

TEXT_BLOCKS = ("transformer.resblocks", "text.transformer.resblocks", "transformer")
"""Where the libraries keep the blocks of a text tower."""


class Prompted(NamedTuple):
    """The result of a forward pass with prompt tokens.

    Attributes:
        logits: (N, K).
        features: (N, D), not normalised.
        inputs: (N, L, D') inputs of each block: class token, prompt tokens, patches.
    """

    logits: Tensor
    features: Tensor
    inputs: tuple[Tensor, ...]


def text_blocks(model: nn.Module) -> list[nn.Module]:
    """Return the blocks of a model's text tower.

    Raises:
        IncompatibleError: If there are none in a known place.
    """
    modules = dict(model.named_modules())
    for path in TEXT_BLOCKS:
        found = modules.get(path)
        if isinstance(found, nn.Sequential | nn.ModuleList):
            return list(found)
    raise IncompatibleError(
        f"deep prompts need a text tower with blocks in {', '.join(TEXT_BLOCKS)}, found none in "
        f"{type(model).__name__}; choose another model"
    )


@contextmanager
def replaced_tokens(blocks: Sequence[nn.Module], rows: Sequence[Tensor], start: int) -> Iterator[None]:
    """Replace tokens at the inputs of the second block and of those after it while the context lasts.

    Args:
        blocks: Of a transformer over (N, L, D') tokens.
        rows: (n, D') for the second block, the third and so on, the same for every item of the batch.
        start: Position of the first replaced token.

    Raises:
        IncompatibleError: If there are more rows than such blocks.
    """
    if len(rows) > max(0, len(blocks) - 1):
        raise IncompatibleError(
            f"prompts for the inputs of {len(rows)} blocks after the first need as many, got {len(blocks)} blocks in "
            "all; choose a deeper model or shallower prompts"
        )

    def replace(row: Tensor) -> Any:
        def hook(module: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
            x, stop = inputs[0], start + len(row)
            own = row.to(x.dtype).expand(len(x), -1, -1)
            return (torch.cat([x[:, :start], own, x[:, stop:]], 1), *inputs[1:])

        return hook

    with ExitStack() as stack:
        for block, row in zip(blocks[1:], rows, strict=False):
            stack.enter_context(block.register_forward_pre_hook(replace(row)))
        yield


@contextmanager
def kept_inputs(blocks: Sequence[nn.Module]) -> Iterator[list[Tensor]]:
    """Yield a list that the inputs of the blocks are put into while the context lasts."""
    seen: list[Tensor] = []

    def keep(module: nn.Module, inputs: tuple[Any, ...]) -> None:
        seen.append(inputs[0])

    with ExitStack() as stack:
        for block in blocks:
            stack.enter_context(block.register_forward_pre_hook(keep))
        yield seen
