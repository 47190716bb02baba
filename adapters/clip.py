# SPDX-License-Identifier: Apache-2.0
"""Zero-shot classification with the class prototypes of a CLIP-like model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from tta_bench.errors import IncompatibleError
from tta_bench.method import ALL_PRECISIONS, Adapted, Card, Inputs, Method, SourceModel, State, Task


@dataclass(frozen=True)
class Clip(Method):
    """Classify zero-shot by comparing an image with the class prompts.

    ``logits = scale * unit(f(x)) @ unit(mean_t unit(g(t(class)))).T`` over prompt templates ``t``.

    Source: CLIP, arXiv:2103.00020, sections 3.1.2 and 3.1.4.
    Differs: the templates are the dataset's own unless ``--prompts`` chooses others, such as the ``single``
    ``a photo of a {}.``, the ``seven`` that CLIP's authors selected on ImageNet, or the ``ensemble`` of 80.
    """

    card: ClassVar[Card] = Card(
        paper="arXiv:2103.00020",
        title="Learning Transferable Visual Models From Natural Language Supervision",
        authors="Radford, Alec and Kim, Jong Wook and Hallacy, Chris and Ramesh, Aditya and Goh, Gabriel and "
        "Agarwal, Sandhini and Sastry, Girish and Askell, Amanda and Mishkin, Pamela and Clark, Jack and "
        "Krueger, Gretchen and Sutskever, Ilya",
        venue="International Conference on Machine Learning",
        year=2021,
        category="episodic",
        updates="inference",
        inputs="features",
        needs=frozenset({"text", "features"}),
        predicts="before",
        reset="image",
        model="pocket-clip",
        independent=True,
        vmappable=True,
        precision=ALL_PRECISIONS,
        idle=(),
        parity="vlm/zero_shot",
        cost="1 forward",
        notes="The zero-shot baseline of the methods that need a text side.",
    )

    def init(self, source: SourceModel, task: Task) -> State:
        """Return an empty state.

        Raises:
            IncompatibleError: If the source model has no text side.
        """
        if source.text is None:
            raise IncompatibleError(
                f"zero-shot classification needs a text side, and {source.name!r} has none; "
                "choose a CLIP-like model, e.g. pocket-clip"
            )
        return {}

    def adapt(self, source: SourceModel, state: State, inputs: Inputs) -> Adapted:
        """Return the state unchanged."""
        return Adapted(state)

    def predict(self, source: SourceModel, state: State, inputs: Inputs) -> Tensor:
        """Return the scaled cosines (N, K) of features and class prototypes."""
        assert inputs.features is not None
        return source.head(inputs.features)
