# SPDX-License-Identifier: Apache-2.0
"""The text side of a CLIP-like source model: prompts in, features and class prototypes out."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cached_property

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tta_bench.models.context import Context, embedded_as, token_embedding
from tta_bench.models.deep_prompts import replaced_tokens, text_blocks
from tta_bench.models.text_tensors import encoded_with, text_norms
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
        self._contexts: dict[str, Context] = {}

    @cached_property
    def sentences(self) -> tuple[str, ...]:
        """The templates filled with the class names: the sentences behind the source model's own scores."""
        return sentences(self.templates, self.class_names)

    def tensors(self) -> dict[str, Tensor]:
        """Return the tensors of the text tower by name; those of a visual tower beside it are left out."""
        named = {**dict(self._model.named_parameters()), **dict(self._model.named_buffers())}
        return {name: value for name, value in named.items() if not name.startswith("visual.")}

    @torch.no_grad()
    def features(self, prompts: Sequence[str]) -> Tensor:
        """Return the raw text features (P, D) of P prompts."""
        return self._encoded(self.tokens(prompts))

    def tokens(self, prompts: Sequence[str]) -> Tensor:
        """Return the token ids (P, L) of P prompts."""
        return self._tokenizer(list(prompts)).to(self.scale.device)

    @torch.no_grad()
    def rows(self, prompts: Sequence[str]) -> tuple[Tensor, Tensor]:
        """Return the token ids (P, L) of P prompts and their embeddings (P, L, W), before positions are added.

        Raises:
            IncompatibleError: If the text tower has no table of token embeddings.
        """
        tokens = self.tokens(prompts)
        return tokens, token_embedding(self._model)(tokens)

    def encode_rows(
        self, rows: Tensor, tokens: Tensor, *, deep: Sequence[Tensor] = (), start: int = 1
    ) -> Tensor:
        """Return the raw text features (P, D) of embedding rows, by the tower's own code.

        Args:
            rows: (P, L, W), in place of the embeddings of the tokens; gradients flow to them, ``vmap`` maps over
                them.
            tokens: (P, L) ids, which say where a prompt ends.
            deep: (n, W) rows that replace some at the inputs of the second block, the third and so on.
            start: Position of the first of these.
        """
        blocks = text_blocks(self._model) if deep else []
        with embedded_as(token_embedding(self._model), rows), replaced_tokens(blocks, deep, start):
            return self._encoded(tokens)

    def context(self, init: str = "a photo of a") -> Context:
        """Return the class prompts with a replaceable context, made once for each initial wording.

        Args:
            init: The words in front of the class name, with which the context starts.
        """
        if init not in self._contexts:
            self._contexts[init] = Context(self, init)
        return self._contexts[init]

    def normalisation(self) -> dict[str, Tensor]:
        """Return the affine tensors of the text tower's norm layers by name."""
        return text_norms(self._model)

    def prototypes_with(self, tensors: Mapping[str, Tensor]) -> Tensor:
        """Return the class prototypes (K, D) of the model's templates, recomputed with other tensors.

        Args:
            tensors: Stand in for the text tower's own by name; gradients flow to them, and the result is not kept.
        """
        unit = [
            F.normalize(encoded_with(self._model, self.tokens(prompts), tensors).to(self.scale.dtype), dim=-1)
            for prompts in ([t.format(name) for name in self.class_names] for t in self.templates)
        ]
        return unit[0] if len(unit) == 1 else F.normalize(torch.stack(unit).mean(0), dim=-1)

    def _encoded(self, tokens: Tensor) -> Tensor:
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
