# SPDX-License-Identifier: Apache-2.0
"""PromptAlign: tune multi-modal prompts so that the tokens of an image's views look like those of source images."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from tta_bench.errors import BadInputError
from tta_bench.losses import chosen_views, marginal_entropy, most_confident
from tta_bench.method import Card, Inputs, SourceModel, State, Task, ViewPolicy
from tta_bench.optim import Tensors

from ._maple import check_fit, check_given, image_prompts, read_prompts, reordered, text_prompts
from ._texts import text_side
from ._view_tuning import Seen, ViewTuning


@dataclass(frozen=True)
class PromptAlign(ViewTuning):
    """Tune prompts of both towers on the marginal entropy and on the distance of token statistics from the source's.

    ``loss = H(mean_{v in S} p_v) + weight / (to - from) sum_b 0.5 (|mu_b - mu_b^src| + |var_b - var_b^src|)``, where
    ``mu_b, var_b`` are taken at the input of block b over the views that are kept for the alignment, and the
    distances are means over tokens and channels. The prompts are those of MaPLe, trained beforehand.

    Source: Abdul Samadh et al., NeurIPS 2023, arXiv:2311.01459.
    Differs: views that no loss is taken over are not differentiated; prompt tokens stand behind the class token,
        where attention treats them alike; the last block of the range counts in the divisor alone, as published.

    Attributes:
        weights: File of the prompts and of the source statistics: ``ctx``, ``proj``, ``compound_prompts_text``,
            ``compound_prompt_projections``, ``source_means`` and ``source_vars`` (blocks, tokens, channels), the tokens
            in the order class, patches, prompts.
        context: The words whose first tokens the context stands in the place of.
        align_selection: Share of the views that the statistics are taken over.
        align_weight: Of the alignment; 0 leaves it out.
        align_from: First block of the alignment.
        align_to: End of the range of blocks; its last block is left out.
        marginal: Whether the marginal entropy is part of the loss.
        reference_quirk: Whether the entropy is taken over the views of the alignment after the first step, as the
            published code does.
    """

    lr: float = 4e-2
    weights: str = ""
    context: str = "a photo of a"
    align_selection: float = 0.1
    align_weight: float = 100.0
    align_from: int = 0
    align_to: int = 3
    marginal: bool = True
    reference_quirk: bool = False

    card: ClassVar[Card] = Card(
        paper="arXiv:2311.01459",
        title="Align Your Prompts: Test-Time Prompting with Distribution Alignment for Zero-Shot Generalization",
        authors="Abdul Samadh, Jameel and Gani, Mohammad Hanan and Hussein, Noor and Khattak, Muhammad Uzair and "
        "Naseer, Muhammad Muzammal and Khan, Fahad Shahbaz and Khan, Salman",
        venue="Advances in Neural Information Processing Systems",
        year=2023,
        category="episodic",
        updates="parameters",
        prompts="single",
        needs=frozenset({"text", "gradients", "class_token"}),
        views=ViewPolicy(64, "crop"),
        reset="image",
        model="pocket-vit-clip",
        vmappable=True,
        chunk=4,
        parity="vlm/promptalign",
        reference_licence="none stated",
        cost="71 forward, 6 of them differentiated; text tower, over all classes: 3 forward + 1 backward",
        notes="Needs prompts that were trained with the very model, and source statistics. The alignment dominates "
        "the loss; its L1 terms make float32 and float64 differ visibly.",
    )
    presets: ClassVar[dict[str, dict[str, Any]]] = {
        "imagenet": {"lr": 4e-2},
        "fine-grained": {"lr": 5e-4},
    }

    def __post_init__(self) -> None:
        """Refuse values outside their range."""
        super().__post_init__()
        if not 0 < self.align_selection <= 1:
            raise BadInputError(f"align_selection must lie in (0, 1], got {self.align_selection}")
        if not 0 <= self.align_weight < math.inf:
            raise BadInputError(f"align_weight must be a number of 0 or more, got {self.align_weight}")
        if not 0 <= self.align_from < self.align_to - 1:
            raise BadInputError(
                "align_from must be 0 or more and align_to at least 2 above it, got "
                f"{self.align_from} and {self.align_to}"
            )

    def check_protocol(self, reset: str, batch_size: int) -> None:
        """Refuse a run without trained prompts, before anything is computed.

        Raises:
            BadInputError: If there is no file of them.
        """
        check_given(self.weights)

    def tensors(self, source: SourceModel) -> Tensors:
        """Return the prompts of the file and the maps from text to image prompts."""
        return read_prompts(self.weights, source)[0]

    def init(self, source: SourceModel, task: Task) -> State:
        """Return the prompts, the optimiser's state and the source statistics.

        Raises:
            BadInputError: If there is no file of prompts, or a part of it is missing.
            IncompatibleError: If they are of another model.
        """
        params, statistics = read_prompts(self.weights, source)
        check_fit(params, statistics, source, self.weights)
        return {"params": params, "optimizer": self.descent().init(params), **statistics}

    def sentences(self, source: SourceModel) -> tuple[str, ...]:
        """Return the class prompts whose first words the context stands in the place of."""
        return text_side(source).context(self.context).sentences

    def texts(self, source: SourceModel, params: Tensors) -> Tensor:
        """Return the unit class features (K, D) under the text prompts."""
        context = text_side(source).context(self.context)
        return F.normalize(context.encode(params["ctx"], text_prompts(params)), dim=-1)

    def view_logits(self, source: SourceModel, params: Tensors, views: Tensor) -> Tensor:
        """Return the logits (N, V, K) of views (N, V, C, H, W) under the prompts."""
        features = source.prompted(views.flatten(0, 1), image_prompts(params)).features
        logits = text_side(source).logits(features, self.texts(source, params))
        return torch.unflatten(logits, 0, views.shape[:2])

    def look(
        self, source: SourceModel, state: State, params: Tensors, inputs: Inputs, before: Seen | None
    ) -> Seen:
        """Return the logits (N, m, K) of the m most confident views alone, and the distance of their tokens."""
        views = inputs.views
        assert views is not None
        if before is None:
            with torch.no_grad():
                every = self.view_logits(source, params, views)
            order = most_confident(every, max(self.selection, self.align_selection))
        else:
            order = before.extra["order"]
        kept = torch.unflatten(chosen_views(views.flatten(2), order), -1, views.shape[2:])
        seen = source.prompted(kept.flatten(0, 1), image_prompts(params))
        text = self.texts(source, params)
        logits = torch.unflatten(text_side(source).logits(seen.features, text), 0, order.shape)
        gap = self._gap(state, [torch.unflatten(x, 0, order.shape) for x in seen.inputs], len(params["ctx"]))
        share = self.selection if before is None or not self.reference_quirk else self.align_selection
        count = max(1, int(views.shape[1] * share))
        chosen = torch.arange(count, device=order.device).expand(len(order), -1)
        return Seen(logits, text, chosen, {"order": order, "gap": gap})

    def loss(self, seen: Seen) -> Tensor:
        """Return the marginal entropy, where it is wanted, and the weighted alignment."""
        aligned = self.align_weight * seen.extra["gap"]
        return marginal_entropy(seen.confident).mean() + aligned if self.marginal else aligned

    def predict(self, source: SourceModel, state: State, inputs: Inputs) -> Tensor:
        """Return the logits (N, K) of the images under the tuned prompts."""
        assert inputs.images is not None
        return self.view_logits(source, state["params"], inputs.images[:, None])[:, 0]

    def _gap(self, state: State, inputs: list[Tensor], prompts: int) -> Tensor:
        """Return the distance of the statistics of block inputs (N, m, L, D') from those of the source."""
        views = max(1, int(self.views * self.align_selection))
        total = inputs[0].new_zeros(())
        for block in range(self.align_from, self.align_to - 1):
            tokens = reordered(inputs[block][:, :views], prompts)
            mean, var = tokens.mean(1), tokens.var(1, unbiased=False)
            total = total + 0.5 * (mean - state["source_means"][block]).abs().mean()
            total = total + 0.5 * (var - state["source_vars"][block]).abs().mean()
        return total / (self.align_to - self.align_from)
