# SPDX-License-Identifier: Apache-2.0
"""Zero-shot classification with the class prompts that a method encodes itself, to tell its gain from theirs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from tta_bench.models.source import SourceModel


class OwnPrompts(NamedTuple):
    """Class prompts of a method.

    Attributes:
        source: The source model.
        sentences: Prompts of all classes under one template, then under the next.
        prototypes: (K, D) unit means over templates.
    """

    source: SourceModel
    sentences: tuple[str, ...]
    prototypes: Tensor

    def logits(self, images: Tensor) -> Tensor:
        """Return the zero-shot scores (N, K) of images (N, C, H, W)."""
        assert self.source.text is not None
        return self.source.text.logits(self.source.encode(images), self.prototypes)


@torch.no_grad()
def own_prompts(source: SourceModel, sentences: Sequence[str]) -> OwnPrompts | None:
    """Return the class prompts among the sentences that a method adds to those of its source model.

    Args:
        source: The source model.
        sentences: From `Method.sentences`; prompts stand template by template, in the order of the classes, and what
            names no single class is left out.

    Returns:
        None without a text side, where there are no class prompts, or where they are the source model's own.
    """
    text, names = source.text, source.class_names
    if text is None:
        return None
    blocks = [tuple(sentences[start : start + len(names)]) for start in range(0, len(sentences), len(names))]
    prompts = [one for one in dict.fromkeys(blocks) if _of_each_class(one, names)]
    flat = tuple(sentence for one in prompts for sentence in one)
    if not flat or flat == text.sentences:
        return None
    each = [F.normalize(text.features(one), dim=-1) for one in prompts]
    return OwnPrompts(source, flat, F.normalize(torch.stack(each).mean(0), dim=-1))


def _of_each_class(sentences: Sequence[str], names: Sequence[str]) -> bool:
    return len(sentences) == len(names) and all(
        name in sentence for name, sentence in zip(names, sentences, strict=True)
    )
