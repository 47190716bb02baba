# SPDX-License-Identifier: Apache-2.0
"""The text side of a CLIP-like source model: prompts in, features and class prototypes out."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

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

    def tensors(self) -> dict[str, Tensor]:
        """Return the tensors of the text tower by name; those of a visual tower beside it are left out."""
        named = {**dict(self._model.named_parameters()), **dict(self._model.named_buffers())}
        return {name: value for name, value in named.items() if not name.startswith("visual.")}

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
