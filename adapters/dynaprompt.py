# SPDX-License-Identifier: Apache-2.0
"""DynaPrompt: a bank of prompts that an image chooses from, tunes and hands on to the next one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor

from tta_bench.errors import BadInputError
from tta_bench.losses import entropy, marginal_entropy
from tta_bench.method import ALL_PRECISIONS, Adapted, Card, Inputs, SourceModel, State, Task, ViewPolicy
from tta_bench.optim import Tensors, gradient

from ._texts import text_side
from ._view_tuning import NEEDS, PromptTuning, one_by_one, rows


class Handed(NamedTuple):
    """The results for one image: the state after it, its logits (1, K) and the losses (steps,)."""

    state: State
    logits: Tensor
    losses: Tensor


@dataclass(frozen=True)
class DynaPrompt(PromptTuning):
    """Tune those prompts of a bank that are surer of an image, and tell its views better apart, than a fresh one.

    ``E_p = mean_v H(p_vp)``, ``Q_p = mean_v (max l_0p - max l_vp)``; chosen are the prompts with ``E_p`` below and
    ``Q_p`` above those of the prompt at the front of the queue, and that one. Their offsets from the initial
    context follow the marginal entropy of the views that are confident under all of them, and they move to the
    end of the queue. The prompt at the front restarts where all have been used.

    Source: Xiao et al., ICLR 2025, arXiv:2501.16404.
    Differs: image features are computed once; the images of a batch are taken one after the other.

    Attributes:
        prompts_kept: P, prompts in the bank.
        keep_moments: Whether the optimiser's state goes on from image to image.
        reference_quirk: Whether the ids of the chosen prompts are taken for positions, as the published code does,
            and the rank in certainty for that in difference.
    """

    prompts_kept: int = 10
    keep_moments: bool = False
    reference_quirk: bool = False

    card: ClassVar[Card] = Card(
        paper="arXiv:2501.16404",
        title="DynaPrompt: Dynamic Test-Time Prompt Tuning",
        authors="Xiao, Zehao and Yan, Shilin and Hong, Jack and Cai, Jiayin and Jiang, Xiaolong and Hu, Yao and "
        "Shen, Jiayi and Wang, Qi and Snoek, Cees G. M.",
        venue="International Conference on Learning Representations",
        year=2025,
        category="online",
        updates="parameters",
        prompts="single",
        inputs="features",
        needs=NEEDS,
        views=ViewPolicy(64, "crop"),
        reset="shift",
        model="pocket-clip",
        precision=ALL_PRECISIONS,
        parity="vlm/dynaprompt",
        cost="64 forward; text tower, over all classes: 10 forward, and 2 forward + 1 backward per chosen prompt",
        notes="Depends on the order of the images. The published code confuses prompts and ranks: see "
        "reference_quirk.",
    )
    presets: ClassVar[dict[str, dict[str, Any]]] = {
        "imagenet": {"lr": 5e-3, "prompts_kept": 10},
        "fine-grained": {"lr": 3e-3, "prompts_kept": 10, "augmentation": "augmix"},
        "published-code": {"prompts_kept": 12, "reference_quirk": True},
    }

    def __post_init__(self) -> None:
        """Refuse values outside their range."""
        super().__post_init__()
        if self.prompts_kept < 1:
            raise BadInputError(f"prompts_kept must be 1 or more, got {self.prompts_kept}")

    def tensors(self, source: SourceModel) -> Tensors:
        """Return the offsets (P, n, W), zero."""
        ctx = self.prompts(source).ctx
        return {"offsets": ctx.new_zeros(self.prompts_kept, *ctx.shape)}

    def init(self, source: SourceModel, task: Task) -> State:
        """Return the offsets, the optimiser's state, the queue of prompts and how often each was used."""
        order = torch.arange(self.prompts_kept, device=source.device)
        return {**self.initial_state(source), "order": order, "use": torch.zeros_like(order)}

    def adapt(self, source: SourceModel, state: State, inputs: Inputs) -> Adapted:
        """Return the state after the images of a batch, one after the other, with their logits."""
        logits = []
        for one in one_by_one(inputs):
            handed = self.hand_on(source, state, one)
            state = handed.state
            logits.append(handed.logits)
        return Adapted(state, torch.cat(logits))

    def hand_on(self, source: SourceModel, state: State, one: Inputs) -> Handed:
        """Choose prompts for one image, tune them on its views, and predict it by them."""
        state = self._renewed(state)
        with torch.no_grad():
            every = torch.arange(self.prompts_kept, device=source.device)
            seen = self._logits(source, state["params"], rows(one), every)
            chosen = self._chosen(seen, state["order"])
            count = max(1, int(seen.shape[1] * self.selection))
            views = entropy(seen[chosen]).mean(0).argsort(stable=True)[:count]
        if not self.keep_moments:
            state = {**state, "optimizer": self.descent().init(state["params"])}
        losses = []

        def loss(params: Tensors) -> tuple[Tensor, Tensor]:
            logits = self._logits(source, params, rows(one)[:, views], chosen)
            return marginal_entropy(logits).mean(), logits

        for _ in range(self.steps):
            grads, value, _ = gradient(loss, state["params"])
            state = self.moved(state, grads)
            losses.append(value)
        with torch.no_grad():
            logits = self._logits(source, state["params"], rows(one)[:, :1], chosen).mean(0)
        return Handed({**state, **_queued(state, chosen)}, logits, torch.stack(losses))

    def _logits(self, source: SourceModel, params: Tensors, features: Tensor, chosen: Tensor) -> Tensor:
        """Return the logits (S, V, K) of views (1, V, D) under S chosen prompts."""
        base = self.prompts(source).ctx
        texts = [self.texts(source, {"ctx": base + params["offsets"][p]}) for p in chosen.tolist()]
        return torch.cat([text_side(source).logits(features, text) for text in texts])

    def _renewed(self, state: State) -> State:
        """Return the state with the prompt at the front of the queue set to 0 if every one has been used."""
        if bool((state["use"] == 0).any()):
            return state
        kept = torch.ones_like(state["use"]).index_fill(0, state["order"][:1], 0)
        offsets = state["params"]["offsets"] * kept[:, None, None]
        return {**state, "params": {"offsets": offsets}, "use": state["use"] * kept}

    def _chosen(self, seen: Tensor, order: Tensor) -> Tensor:
        """Return the chosen prompts (S,) by the logits (P, V, K) of all, that of the front of the queue last."""
        front = int(order[0])
        certain = entropy(seen).mean(-1)
        top = seen.amax(-1)
        apart = (top[:, :1] - top[:, 1:]).mean(-1) if top.shape[1] > 1 else torch.zeros_like(certain)
        if self.reference_quirk:
            return _confused(certain, apart, front)
        better = (certain < certain[front]) & (apart > apart[front])
        return torch.cat([better.nonzero().flatten(), order[:1]])


def _confused(certain: Tensor, apart: Tensor, front: int) -> Tensor:
    """Return the prompts that the published code chooses; one may be named twice."""
    by_entropy = certain.argsort(descending=True, stable=True).tolist()
    by_difference = apart.argsort(descending=True, stable=True).tolist()
    rank = by_entropy.index(front)
    found = {*by_entropy[min(rank + 1, len(by_entropy) - 1) :]} & {*by_difference[:rank]}
    return torch.tensor([by_entropy[a] for a in [*sorted(found), rank]], device=certain.device)


def _queued(state: State, chosen: Tensor) -> State:
    """Return the queue with the chosen prompts moved to its end, and their uses counted."""
    order, use = state["order"].tolist(), state["use"].clone()
    for prompt in chosen.tolist():
        order.remove(prompt)
        order.append(prompt)
        use[prompt] += 1
    return {"order": torch.tensor(order, device=use.device), "use": use}
