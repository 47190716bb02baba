# SPDX-License-Identifier: Apache-2.0
"""FOA: prompt tokens found by an evolution strategy, and features shifted back, by forward passes alone."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor

from tta_bench.errors import BadInputError, IncompatibleError
from tta_bench.losses import entropy
from tta_bench.method import ALL_PRECISIONS, Adapted, Card, Inputs, Method, SourceModel, State, Task
from tta_bench.optim import Tensors, widest

from . import _cma as cma
from ._source_images import pooled_moments, source_batches, statistics_note

KEEP = 0.9
UNIT_BATCH = 64


class Judged(NamedTuple):
    """One candidate on a batch: its fitness, and the features (B, D) it gives."""

    fitness: Tensor
    features: Tensor


@dataclass(frozen=True)
class Foa(Method):
    """Search prompt tokens of a transformer by forward passes, and shift its features back to the source's mean.

    F holds the class token after every block, normalised by the norm that follows. CMA-ES proposes `population` sets of
    prompt tokens for each batch, and the best of the last batch is tried too: ``fitness = weight (||std(F) - s||^2 +
    ||mean(F) - m||^2) B / 64 + sum_i H(z_i)``, with mean m and deviation s of F over source images. The prediction is
    ``head(f + d)`` under the fittest, ``d = m_f - h``; h averages the mean features of all candidates, a tenth of each
    batch. Without prompts only the shift is left. No pass is differentiated.

    Source: Niu et al., ICML 2024, arXiv:2404.01650.
    Differs: a reset draws new first prompts from the draws and restores the rest; in a batch of one image, which has no
    deviation, the fitness is that of the mean; features are shifted as they enter the head.

    Attributes:
        prompts: Prompt tokens; 0 for the shift alone, on any model.
        population: Candidates K of CMA-ES for each batch; one more is tried beside them.
        weight: Of the discrepancy from the source statistics.
        sigma: First step size of CMA-ES.
        samples: Source images for the statistics; all of them if there are fewer.
    """

    prompts: int = 3
    population: int = 27
    weight: float = 0.4
    sigma: float = 1.0
    samples: int = 50000

    card: ClassVar[Card] = Card(
        paper="arXiv:2404.01650",
        title="Test-Time Model Adaptation with Only Forward Passes",
        authors="Niu, Shuaicheng and Miao, Chunyan and Chen, Guohao and Wu, Pengcheng and Zhao, Peilin",
        venue="International Conference on Machine Learning",
        year=2024,
        category="online",
        updates="state",
        needs=frozenset({"class_token", "source_images"}),
        predicts="during",
        model="pocket-vit-clip",
        precision=ALL_PRECISIONS,
        parity="online/foa",
        cost="28 forward; before the stream 1 forward over the source images",
        reference_licence="non-commercial",
        notes="Reads source images once, before the stream, without their labels. Baselines of this name in other "
        "papers may have a population of 2 and statistics of one batch, which is another method.",
    )
    presets: ClassVar[dict[str, dict[str, Any]]] = {
        "imagenet-c": {"weight": 0.4},
        "imagenet-r": {"weight": 0.2},
        "shift": {"prompts": 0},
        "pocket": {"samples": 512},
    }

    def __post_init__(self) -> None:
        """Refuse values outside their range."""
        if self.prompts < 0 or self.population < 2 or self.samples < 1:
            raise BadInputError(
                "prompts must be 0 or more, population 2 or more and samples 1 or more, got "
                f"{self.prompts}, {self.population} and {self.samples}"
            )
        if not self.weight >= 0 or not self.sigma > 0:
            raise BadInputError(
                f"weight must be 0 or more and sigma above 0, got {self.weight} and {self.sigma}"
            )

    def notes(self, source: SourceModel) -> dict[str, str]:
        """Return which source images the statistics come from."""
        return statistics_note("mean and deviation of the class tokens of all blocks", self.samples)

    def init_reads(self, available: int) -> int:
        """Return how many source images are read before the stream."""
        return min(self.samples, available)

    def init(self, source: SourceModel, task: Task) -> State:
        """Return the source statistics, an empty history and, with prompts, the search at its start.

        Raises:
            IncompatibleError: If there are prompts and the model has no class token.
        """
        moments = pooled_moments(
            self._seen(source, images) for images, _ in source_batches(task, self.samples)
        )
        state = {
            "source_feature": moments.mean["features"],
            "history": torch.zeros_like(moments.mean["features"]),
            "begun": torch.zeros((), dtype=torch.bool, device=source.device),
        }
        if not self.prompts:
            return state
        width = self._parts(source).width
        search = cma.start(self._search(source), self.sigma, source.device)
        return {
            **state, "search": search,
            "source_mean": moments.mean["layers"], "source_std": moments.var["layers"].sqrt(),
            "prompts": torch.zeros(self.prompts, width, dtype=source.dtype, device=source.device),
            "fitness": torch.zeros(self.population + 1, dtype=widest(source.device), device=source.device),
        }  # fmt: skip

    def draw(self, source: SourceModel, n: int, generator: torch.Generator) -> Tensors | None:
        """Return normal numbers (1, K, N) for the candidates, and first prompts (1, n, D), used at the start alone."""
        if not self.prompts:
            return None
        parts = self._parts(source)
        reach = math.sqrt(6 / (len(source.mean) * parts.patch[0] * parts.patch[1] + parts.width))
        first = torch.rand(1, self.prompts, parts.width, generator=generator, device=generator.device)
        z = torch.randn(
            1, self.population, self.prompts * parts.width, generator=generator, device=generator.device
        )
        return {"z": z, "first": reach * (2 * first - 1)}

    @torch.no_grad()
    def adapt(self, source: SourceModel, state: State, inputs: Inputs) -> Adapted:
        """Return the state after one round of the search, and the shifted logits of its fittest candidate."""
        images = inputs.images
        assert images is not None
        if self.prompts:
            return self._searched(source, state, images, inputs.draws)
        features = source.encode(images)
        return self._shifted(source, state, features, features.mean(0))

    def _searched(self, source: SourceModel, state: State, images: Tensor, draws: Tensors) -> Adapted:
        search = self._search(source)
        search_state = cma.decomposed(search, state["search"])
        last = state["prompts"] if int(search_state["told"]) else draws["first"][0].to(state["prompts"])
        candidates = torch.cat(
            [
                cma.propose(search_state, draws["z"][0].to(source.device)),
                last.to(widest(last.device)).flatten()[None],
            ]
        )
        prompts = candidates.to(source.dtype).view(-1, *last.shape)
        judged = [self._judged(source, state, images, tokens) for tokens in prompts]
        fitness = torch.stack([one.fitness for one in judged])
        best = int(fitness.argmin())
        after = {
            **state, "search": cma.update(search, search_state, candidates, fitness), "prompts": prompts[best].clone(),
            "fitness": fitness,
        }  # fmt: skip
        mean = torch.stack([one.features.mean(0) for one in judged]).mean(0)
        return self._shifted(source, after, judged[best].features, mean)

    def _judged(self, source: SourceModel, state: State, images: Tensor, tokens: Tensor) -> Judged:
        layers = self._parts(source).norms
        seen = source.observe(images, layers=layers, class_token=True, prompts=tokens)
        rows = torch.cat([seen.outputs[name] for name in layers], -1)
        away = (rows.mean(0) - state["source_mean"]).square().sum()
        if len(rows) > 1:
            away = away + (rows.std(0) - state["source_std"]).square().sum()
        fitness = self.weight * away * len(rows) / UNIT_BATCH + entropy(seen.logits).sum()
        return Judged(fitness.to(widest(fitness.device)), seen.features)

    def _shifted(self, source: SourceModel, state: State, features: Tensor, mean: Tensor) -> Adapted:
        """Return the state with the batch in its history, and logits that the history before it shifts."""
        begun, history = state["begun"], state["history"]
        shift = torch.where(begun, state["source_feature"] - history, 0.0)
        kept = torch.where(begun, KEEP * history + (1 - KEEP) * mean, mean)
        return Adapted(
            {**state, "history": kept, "begun": torch.ones_like(begun)}, source.head(features + shift)
        )

    def _seen(self, source: SourceModel, images: Tensor) -> Tensors:
        """Return the features of images and, with prompts, the class tokens of all layers, in rows."""
        with torch.no_grad():
            if not self.prompts:
                return {"features": source.encode(images)}
            layers = self._parts(source).norms
            seen = source.observe(images, layers=layers, class_token=True)
            return {"features": seen.features, "layers": torch.cat([seen.outputs[n] for n in layers], -1)}

    def _search(self, source: SourceModel) -> cma.Search:
        return cma.Search(self.prompts * self._parts(source).width, self.population)

    def _parts(self, source: SourceModel) -> Any:
        if source.transformer is None:
            raise IncompatibleError(
                f"Foa needs a vision transformer with a class token, which {source.name!r} is not; choose one, or set "
                "prompts=0 for the shift alone"
            )
        return source.transformer
