# SPDX-License-Identifier: Apache-2.0
"""The text side of a CLIP-like source model: prompts in, features and class prototypes out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tta_bench.prompts import sentences

Tokenizer = Callable[[list[str]], Tensor]


class TextSide:
    """Encode prompts and class prototypes with the frozen text tower of one model.

    Attributes:
        scale: 0-d, the factor of the cosine similarities (already exponentiated).
        bias: 0-d added to the logits (SigLIP), or None.
        class_names: The K classes that the source model is bound to.
        templates: Prompt templates with one ``{}`` each.
    """

    def __init__(
        self,
        model: nn.Module,
        tokenizer: Tokenizer,
        class_names: Sequence[str],
        templates: Sequence[str],
        *,
        scale: Tensor,
        bias: Tensor | None = None,
    ) -> None:
        self._model, self._tokenizer = model, tokenizer
        self.class_names, self.templates = tuple(class_names), tuple(templates)
        self.scale, self.bias = scale, bias
        self._prototypes: dict[tuple[str, ...], Tensor] = {}

    @cached_property
    def sentences(self) -> tuple[str, ...]:
        """What the templates say of the classes: the sentences behind the source model's own scores."""
        return sentences(self.templates, self.class_names)

    @torch.no_grad()
    def features(self, prompts: Sequence[str]) -> Tensor:
        """Return the raw text features (P, D) of P prompts."""
        tokens = self._tokenizer(list(prompts)).to(self.scale.device)
        encoded: Tensor = self._model.encode_text(tokens)  # type: ignore[operator]
        return encoded.to(self.scale.dtype)

    def prototypes(self, templates: Sequence[str] | None = None) -> Tensor:
        """Return the class prototypes (K, D): the unit mean over templates of unit text features.

        Args:
            templates: Templates with one ``{}`` each; default: those of the source model.

        Source: prompt ensembling of CLIP, arXiv:2103.00020, section 3.1.4.
        """
        chosen = self.templates if templates is None else tuple(templates)
        if chosen not in self._prototypes:
            each = [
                F.normalize(self.features([template.format(name) for name in self.class_names]), dim=-1)
                for template in chosen
            ]
            self._prototypes[chosen] = F.normalize(torch.stack(each).mean(0), dim=-1)
        return self._prototypes[chosen]

    def logits(self, features: Tensor, prototypes: Tensor) -> Tensor:
        """Return the scores (N, K) of raw image features (N, D) under unit class prototypes (K, D).

        For methods that classify with prototypes of their own; ``source.head`` gives those of the source model.
        """
        return similarity(features, prototypes, self.scale, self.bias)


def similarity(features: Tensor, prototypes: Tensor, scale: Tensor, bias: Tensor | None) -> Tensor:
    """Return the CLIP logits (N, K): scaled cosines of raw features (N, D) and unit prototypes (K, D).

    They are computed in the prototypes' type under autocast too: large cosines rounded to bfloat16 tie.
    """
    with torch.autocast(features.device.type, enabled=False):
        logits = scale * F.normalize(features.to(prototypes.dtype), dim=-1) @ prototypes.T
    return logits if bias is None else logits + bias
