# SPDX-License-Identifier: Apache-2.0
"""ECALP: labels propagated from class texts over a graph of all images so far."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import inf
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from tta_bench.method import ALL_PRECISIONS, Card, Inputs, SourceModel, State, Task

from ._matching import NEEDS, Matching
from ._ranges import positive, within

OUTDATED = -1.0
"""Similarity of an entry that named the last image's duplicate."""
KEPT_LABEL = 0.2
"""Share of an image's score that it starts the next propagation with."""


@dataclass(frozen=True)
class Ecalp(Matching):
    """Propagate labels over a graph that grows by every image.

    Each image, and a duplicate of the newest, points at its nearest images, by channels weighted by how much the class
    texts differ in them, and at its nearest texts; edges weigh ``similarity^gamma``, are made symmetric and normalised
    by degree. ``Y <- alpha W [I; Y] + (1 - alpha) Y_0`` from what the last image's propagation left; the duplicate's
    row is the score, and ``p = softmax(sharpness score)``.

    Source: Li et al., ICLR 2025, arXiv:2412.18303, section 3 and algorithm 1.
    Differs: equal similarities keep the order of the images, which the reference leaves open.

    Attributes:
        text_neighbours: Texts that an image points at.
        image_neighbours: Images that it points at.
        gamma: Power of the similarities; even, negative ones count like positive ones.
        alpha: Share of the neighbours' labels.
        steps: Propagations for each image.
        sharpness: Factor of the scores before the softmax.
    """

    text_neighbours: int = 3
    image_neighbours: int = 8
    gamma: int = 10
    alpha: float = 1.0
    steps: int = 3
    sharpness: float = 10000.0

    card: ClassVar[Card] = Card(
        paper="arXiv:2412.18303",
        title="Efficient and Context-Aware Label Propagation for Zero-/Few-Shot Training-Free Adaptation of "
        "Vision-Language Model",
        authors="Li, Yushu and Su, Yongyi and Goodge, Adam and Jia, Kui and Xu, Xun",
        venue="International Conference on Learning Representations",
        year=2025,
        category="online",
        updates="state",
        inputs="features",
        needs=NEEDS,
        output="probabilities",
        predicts="during",
        model="pocket-clip",
        fixed_shapes=False,
        grows=("features", "near", "similarity", "labels", "values"),
        precision=ALL_PRECISIONS,
        parity="vlm/ecalp",
        cost="1 forward",
        notes="Online and without gradients; time and memory of a step grow with the images so far. The probabilities "
        "are all but certain: calibration says nothing of them.",
    )
    presets: ClassVar[dict[str, dict[str, Any]]] = {"li-2025": {"image_neighbours": 8, "gamma": 10}}
    scoring: ClassVar[frozenset[str]] = frozenset({"sharpness"})

    def __post_init__(self) -> None:
        """Refuse values outside their range."""
        super().__post_init__()
        within(self, 1, inf, "text_neighbours", "image_neighbours", "gamma", "steps")
        within(self, 0, 1, "alpha")
        within(self, 1, 1, "views")
        positive(self, "sharpness")

    def init(self, source: SourceModel, task: Task) -> State:
        """Return the class texts and a graph without images."""
        text = self.texts(source)
        width, none = self.image_neighbours + 2, torch.zeros(0, dtype=torch.int64, device=text.device)
        return {
            "text": text,
            "features": text[:0].clone(),
            "near": none.view(0, 1).expand(0, width).clone(),
            "similarity": text.new_zeros(0, width),
            "labels": none,
            "values": text.new_zeros(0),
        }

    def observe(self, source: SourceModel, state: State, inputs: Inputs) -> tuple[State, dict[str, Tensor]]:
        """Return the graph with the images, one by one, and the scores of each."""
        text, found = state["text"], []
        channels = F.normalize(text.var(0, correction=min(1, len(text) - 1)), dim=0)
        for one in self.rows(inputs)[:, 0]:
            nodes = torch.cat([state["features"], one.expand(2, -1)])
            similar = F.normalize(channels * nodes, dim=-1) @ one
            near, similarity = self._linked(state, similar)
            scores = self._propagated(state, nodes, near, similarity)
            values, labels = scores[:-1].max(-1)
            state = {
                "text": text, "features": nodes[:-1], "near": near[:-1], "similarity": similarity[:-1],
                "labels": labels, "values": values,
            }  # fmt: skip
            found.append(scores[-1])
        return state, {"scores": torch.stack(found)}

    def _linked(self, state: State, similar: Tensor) -> tuple[Tensor, Tensor]:
        """Return each image's nearest (T + 2, M), by descending similarity, after the newest came with its duplicate.

        Args:
            state: The graph of T images before.
            similar: (T + 2,) similarities of all images and the duplicate with the newest.
        """
        count, width = len(similar), self.image_neighbours + 2
        newest, rows = count - 2, count - 2
        old = state["similarity"].masked_fill(state["near"] == newest, OUTDATED)
        old = torch.where(state["similarity"].isinf(), state["similarity"], old)
        pair = torch.tensor([newest, newest + 1], device=similar.device).expand(rows, 2)
        kept = torch.cat([old, similar[:rows, None].expand(rows, 2)], 1)
        order = kept.argsort(dim=-1, descending=True, stable=True)[:, :width]
        near = torch.cat([state["near"], pair], 1).gather(1, order)
        new = similar.argsort(descending=True, stable=True)[:width]
        short = width - len(new)
        near = torch.cat([near, F.pad(new, (0, short)).expand(2, -1)])
        latest = F.pad(similar[new], (0, short), value=-inf).expand(2, -1)
        similarity = torch.cat([kept.gather(1, order), latest])
        used = min(self.image_neighbours, count)
        room = used + min(2, max(0, rows - used))
        similarity = similarity.masked_fill(torch.arange(width, device=near.device) >= room, -inf)
        return near, similarity

    def _propagated(self, state: State, nodes: Tensor, near: Tensor, similarity: Tensor) -> Tensor:
        """Return the scores (T + 2, K) of all images and the duplicate."""
        text, used = state["text"], min(self.image_neighbours, len(nodes))
        near = near[:, :used]
        weights = similarity[:, :used]
        weights = torch.where(weights.isinf(), 0.0, weights**self.gamma)
        to_text, texts = _nearest(nodes @ text.T, self.text_neighbours)
        to_text = to_text**self.gamma
        degree = weights.sum(1) + to_text.sum(1)
        degree = 1 / (degree.index_add(0, near.flatten(), weights.flatten()).sqrt() + 1e-6)
        of_texts = text.new_zeros(len(text)).index_add(0, texts.flatten(), to_text.flatten())
        of_texts = 1 / (of_texts.sqrt() + 1e-6)
        anchors = text.new_zeros(len(nodes), len(text))
        anchors = anchors.scatter_add(1, texts, degree[:, None] * to_text * of_texts[texts])
        graph = _symmetric(near, degree[:, None] * weights * degree[near])
        start = torch.zeros_like(anchors)
        start[torch.arange(len(nodes) - 2, device=near.device), state["labels"]] = (
            KEPT_LABEL * state["values"]
        )
        scores = start
        for _ in range(self.steps):
            scores = self.alpha * (anchors + graph @ scores) + (1 - self.alpha) * start
        return scores

    def score(self, source: SourceModel, evidence: Mapping[str, Tensor]) -> Tensor:
        """Return the probabilities (N, K)."""
        return (self.sharpness * evidence["scores"]).softmax(-1)


def _nearest(values: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Return the largest values of each row and their places, of equals the first."""
    order = values.argsort(dim=-1, descending=True, stable=True)[:, :count]
    return values.gather(1, order), order


def _symmetric(near: Tensor, weights: Tensor) -> Tensor:
    """Return the sparse matrix (T, T) of edges (T, k) in both directions, weights of equal places added."""
    start = torch.arange(len(near), device=near.device).unsqueeze(1).expand_as(near)
    places = torch.stack([torch.cat([start, near]).flatten(), torch.cat([near, start]).flatten()])
    values = torch.cat([weights, weights]).flatten()
    return torch.sparse_coo_tensor(places, values, (len(near), len(near)), check_invariants=False).coalesce()
