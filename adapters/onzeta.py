# SPDX-License-Identifier: Apache-2.0
"""OnZeta: online labels under a balance of classes, and vision proxies that learn from them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import inf
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from tta_bench.errors import BadInputError
from tta_bench.method import ALL_PRECISIONS, Card, Inputs, SourceModel, State, Task

from ._matching import NEEDS, Matching
from ._ranges import positive, within


@dataclass(frozen=True)
class OnZeta(Matching):
    """Balance the predicted classes online, and learn a proxy of each class in the space of images.

    Image i of n, with ``b = beta sqrt(i / n)``: ``q ~ softmax(x.T / tau_text) exp(rho)``, ``r = softmax(x.w /
    tau_image)``, output ``b r + (1 - b) q``. Then ``rho <- max(rho - c_r / sqrt(i) (q - alpha / K), 0)`` and ``w <-
    unit(w - c_w / sqrt(i) (r - q) x / tau_image)``.

    Source: Qian & Hu, ECCV 2024, arXiv:2408.13320, algorithm 1.
    Differs: nothing; past the announced length b stays at ``beta``.

    Attributes:
        lr_proxy: Step c_w of the proxies.
        lr_dual: Step c_r of the balance.
        beta: Share of the proxies' prediction at the end of the stream.
        alpha: Least share of each class, as a part of 1 / K; 0 for no balance.
        tau_text: Temperature of cosines with texts.
        tau_image: Temperature of cosines with proxies.
    """

    lr_proxy: float = 0.5
    lr_dual: float = 20.0
    beta: float = 0.8
    alpha: float = 1.0
    tau_text: float = 0.01
    tau_image: float = 0.04

    card: ClassVar[Card] = Card(
        paper="arXiv:2408.13320",
        title="Online Zero-Shot Classification with CLIP",
        authors="Qian, Qi and Hu, Juhua",
        venue="European Conference on Computer Vision",
        year=2024,
        category="online",
        updates="state",
        inputs="features",
        needs=NEEDS | {"stream_length"},
        output="probabilities",
        predicts="during",
        model="pocket-clip",
        precision=ALL_PRECISIONS,
        parity="vlm/onzeta",
        cost="1 forward",
        notes="Online and without gradients; must know the length of the stream, depends on the order, and is wild on "
        "short streams.",
    )
    presets: ClassVar[dict[str, dict[str, Any]]] = {
        "qian-2024": {"prompts": "seven"},
        "tta-vlm": {"prompts": "single", "beta": 0.4},
        "tta-vlm-imagenet": {"prompts": "single"},
        "tta-vlm-caltech101": {"prompts": "single", "beta": 0.4, "alpha": 0.0},
    }

    scoring: ClassVar[frozenset[str]] = frozenset({"beta"})

    def __post_init__(self) -> None:
        """Refuse values outside their range."""
        super().__post_init__()
        positive(self, "tau_text", "tau_image")
        within(self, 0, inf, "lr_proxy", "lr_dual", "alpha")
        within(self, 0, 1, "beta")
        if self.views > 1:
            raise BadInputError(f"views must be 1: OnZeta sees the image alone, got {self.views}")

    def init(self, source: SourceModel, task: Task) -> State:
        """Return texts and proxies (K, D), the dual variable (K,), and the images seen and to come.

        Raises:
            BadInputError: If the length of the stream is not known.
        """
        if not task.stream_length:
            raise BadInputError("OnZeta needs the length of the stream, which is not known; limit the stream")
        text, device = self.texts(source), source.device
        return {
            "text": text,
            "proxies": text,
            "rho": text.new_zeros(len(text)),
            "seen": torch.zeros((), dtype=torch.int64, device=device),
            "length": torch.tensor(task.stream_length, dtype=torch.int64, device=device),
        }

    def observe(self, source: SourceModel, state: State, inputs: Inputs) -> tuple[State, dict[str, Tensor]]:
        """Return the state after the images, one by one, and both predictions (N, K) of each with their weight."""
        x, w, rho, seen = self.rows(inputs)[:, 0], state["proxies"], state["rho"], state["seen"]
        from_text, from_proxies, weights = [], [], []
        for one, logits in zip(x, x @ state["text"].T / self.tau_text, strict=True):
            seen = seen + 1
            root = seen.to(x.dtype).sqrt()
            q = (logits + rho).softmax(-1)
            rho = (rho - self.lr_dual / root * (q - self.alpha / len(q))).clamp(min=0)
            r = (w @ one / self.tau_image).softmax(-1)
            step = self.lr_proxy / root / self.tau_image
            w = F.normalize(w - step * torch.outer(r - q, one), dim=-1)
            from_text.append(q)
            from_proxies.append(r)
            weights.append((seen / state["length"]).clamp(max=1).to(x.dtype).sqrt())
        evidence = {
            "text": torch.stack(from_text), "proxies": torch.stack(from_proxies), "weight": torch.stack(weights)
        }  # fmt: skip
        return {**state, "proxies": w, "rho": rho, "seen": seen}, evidence

    def score(self, source: SourceModel, evidence: Mapping[str, Tensor]) -> Tensor:
        """Return the probabilities (N, K) of texts and proxies together."""
        weight = self.beta * evidence["weight"].unsqueeze(-1)
        return torch.lerp(evidence["text"], evidence["proxies"], weight)
