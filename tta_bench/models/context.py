# SPDX-License-Identifier: Apache-2.0
"""Learnable prompt contexts: token rows of class prompts in which the rows of the first words are replaced."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from tta_bench.errors import IncompatibleError

if TYPE_CHECKING:
    from tta_bench.models.text import TextSide

EMBEDDINGS = ("token_embedding", "word_embeddings", "tok_embeddings")
"""Names under which libraries keep the table of token embeddings."""


class Context:
    """The class prompts of one text side with a replaceable context in front of the class names.

    Args:
        text: The text side.
        init: The words that the context starts as, before each class name.

    Attributes:
        ctx: (n, W) token embeddings of the words.
        sentences: The K class prompts that it starts as.

    Raises:
        IncompatibleError: If the tokenizer gives these words no tokens of their own.
    """

    ctx: Tensor

    def __init__(self, text: TextSide, init: str) -> None:
        self._text = text
        self.sentences = tuple(f"{init} {name}." for name in text.class_names)
        self._tokens, self._rows = text.rows(self.sentences)
        empty, bare = text.tokens(["", init])
        self._start = _common(empty, bare)
        stop = min(_common(bare, tokens) for tokens in self._tokens)
        if stop <= self._start:
            raise IncompatibleError(
                f"the tokenizer gives the context {init!r} no tokens of its own; choose other words"
            )
        self.ctx = self._rows[0, self._start : stop].clone()

    def rows(self, ctx: Tensor) -> Tensor:
        """Return the token rows (K, L, W) of the class prompts with another context (m, W), m at most n."""
        classes, stop = len(self._rows), self._start + len(ctx)
        return torch.cat(
            [self._rows[:, : self._start], ctx.expand(classes, -1, -1), self._rows[:, stop:]], dim=1
        )

    def encode(self, ctx: Tensor, deep: Sequence[Tensor] = ()) -> Tensor:
        """Return the raw text features (K, D) of all classes under a context; differentiable.

        Args:
            ctx: (n, W).
            deep: (n, W) rows that stand in its place at the inputs of the second block, the third and so on.
        """
        return self._text.encode_rows(self.rows(ctx), self._tokens, deep=deep, start=self._start)

    @property
    def start(self) -> int:
        """Position of the first token of the context."""
        return self._start


def token_embedding(model: nn.Module) -> nn.Embedding:
    """Return the table of token embeddings of a model's text tower.

    Raises:
        IncompatibleError: If there is none of a known name.
    """
    for name, module in model.named_modules():
        if isinstance(module, nn.Embedding) and name.rpartition(".")[2] in EMBEDDINGS:
            return module
    raise IncompatibleError(
        f"expected a text tower with token embeddings ({', '.join(EMBEDDINGS)}), found none in "
        f"{type(model).__name__}; choose another model for methods that tune prompts"
    )


@contextmanager
def embedded_as(table: nn.Embedding, rows: Tensor) -> Iterator[None]:
    """Let a table of embeddings give these rows (P, L, W), whatever it is asked for, while the context lasts."""

    def give(module: nn.Module, inputs: Any, output: Tensor) -> Tensor:
        return rows.to(output.dtype)

    handle = table.register_forward_hook(give)
    try:
        yield
    finally:
        handle.remove()


def _common(first: Tensor, second: Tensor) -> int:
    """Return how many tokens two sequences (L,) of ids have in common before they differ."""
    differ: Sequence[int] = (first != second).nonzero().flatten().tolist()
    return differ[0] if differ else len(first)
