# SPDX-License-Identifier: Apache-2.0
"""AdaContrast: pseudo-labels refined by neighbours, and class-aware contrastive learning with a momentum model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from tta_bench.augment import Draws, augment, draw_contrastive, draw_crops
from tta_bench.errors import BadInputError
from tta_bench.losses import diversity
from tta_bench.method import ALL_PRECISIONS, Adapted, Card, Inputs, SourceModel, State
from tta_bench.norms import track
from tta_bench.optim import Optimizer, Tensors, ema, gradient

from ._descent import Descending
from ._layers import stored_statistics
from ._memory import written

WEAK_AREA = ((7 / 8) ** 2, (7 / 8) ** 2)
"""A crop of 224 of 256 pixels."""


@dataclass(frozen=True)
class AdaContrast(Descending):
    """Learn from refined pseudo-labels, a contrastive loss against a queue of keys, and diversity.

    The label of an image is the class of its weakly augmented copy, and once ``patience`` images were seen that
    of the mean prediction of the ``neighbours`` entries of a bank whose features have the largest cosine.
    The loss on a strongly augmented copy is ``CE(z_q, label) + L_ins + sum_c m_c ln m_c``: L_ins picks, at the
    given temperature, the momentum model's key of another strong copy out of a queue of earlier keys, of which
    those with the image's own label are left out; m is the mean prediction. All weights take a step; the
    momentum model is a moving average, and its features and predictions of the weak copies go to the bank.
    BatchNorm layers normalise by the batch and track their statistics meanwhile. The prediction is a forward pass of
    the images after the step, with the tracked statistics.

    Source: Chen et al., CVPR 2022, arXiv:2204.10377, eqs. 1 to 8.
    Differs: the published code masks the queue by the labels of the entries that have just overwritten it
    (``reference_quirk``); ours uses the labels of the entries compared. The first queue is drawn with `seed`,
    and a reset brings the same one back. A weak copy is a crop of 7/8 of the model's input,
        where the published one is 224 of 256 pixels before the model's centre crop.

    Attributes:
        queue: Entries of the queue and of the bank.
        temperature: Of the contrastive loss.
        keep: Share of the momentum model that is kept.
        neighbours: Entries of the bank that refine a label.
        patience: Images seen before labels are refined.
        seed: Of the first queue.
        reference_quirk: Mask the queue as the published code does.
    """

    lr: float = 2e-4
    optimizer: Optimizer = "sgd"
    nesterov: bool = True
    weight_decay: float = 1e-4
    queue: int = 16384
    temperature: float = 0.07
    keep: float = 0.999
    neighbours: int = 10
    patience: int = 1024
    seed: int = 0
    reference_quirk: bool = False

    card: ClassVar[Card] = Card(
        paper="arXiv:2204.10377",
        title="Contrastive Test-Time Adaptation",
        authors="Chen, Dian and Wang, Dequan and Darrell, Trevor and Ebrahimi, Sayna",
        venue="Conference on Computer Vision and Pattern Recognition",
        year=2022,
        category="online",
        updates="parameters",
        needs=frozenset({"gradients"}),
        predicts="after",
        draw_device="device",
        precision=ALL_PRECISIONS,
        parity="online/adacontrast",
        cost="5 forward + 1 backward",
        notes="Remembers features of test images; a forward pass after the step makes the prediction.",
    )
    presets: ClassVar[dict[str, dict[str, Any]]] = {
        "cifar10-c": {"lr": 2e-4},
        "cifar100-c": {"lr": 2e-4},
        "imagenet-c": {"lr": 2e-4},
    }

    def __post_init__(self) -> None:
        """Refuse values outside their range."""
        super().__post_init__()
        if min(self.queue, self.neighbours) < 1 or self.patience < 0 or not self.temperature > 0:
            raise BadInputError(
                "queue and neighbours must be 1 or more, patience 0 or more and temperature above 0, got "
                f"{self.queue}, {self.neighbours}, {self.patience} and {self.temperature}"
            )
        if not 0 <= self.keep <= 1:
            raise BadInputError(f"keep must lie in [0, 1], got {self.keep}; it is a share")

    def tensors(self, source: SourceModel) -> Tensors:
        """Return every weight and bias."""
        return source.weights()

    def initial_state(self, source: SourceModel) -> State:
        """Return the first state: both models are the source model, the bank is empty, the queue random."""
        state, generator = super().initial_state(source), torch.Generator().manual_seed(self.seed)
        keys = F.normalize(torch.randn(self.queue, source.dim, generator=generator), dim=-1)
        labels = torch.randint(source.num_classes, (self.queue,), generator=generator)
        keys = keys.to(source.dtype).to(source.device)
        none = torch.zeros((), dtype=torch.int64, device=source.device)
        return {
            **state,
            "stats": stored_statistics(source),
            "momentum_model": dict(state["params"]),
            "queue": {"keys": keys, "labels": labels.to(source.device), "next": none},
            "bank": {
                "features": torch.zeros_like(keys),
                "p": keys.new_zeros(self.queue, source.num_classes),
                "added": none,
            },
            "seen": none,
        }

    def draw(self, source: SourceModel, n: int, generator: torch.Generator) -> dict[str, Draws]:
        """Return the parameters of a weak and two strong augmentations of each image."""
        shape = source.image_shape
        weak = draw_crops(n, shape, generator, WEAK_AREA, ratio=(1.0, 1.0))
        return {"weak": weak, **{name: draw_contrastive(n, shape, generator) for name in ("query", "key")}}

    def adapt(self, source: SourceModel, state: State, inputs: Inputs) -> Adapted:
        """Return the state after one step."""
        assert inputs.images is not None
        weak, query, key = (augment(inputs.images, inputs.draws[name]) for name in ("weak", "query", "key"))
        with torch.no_grad():
            plain = source.forward(weak, {**state["params"], **state["stats"]}, norm=track())
        labels = self._labels(state, plain.features, plain.logits)
        stats = {**state["stats"], **plain.stats}
        momentum = ema(state["momentum_model"], state["params"], keep=self.keep)
        with torch.no_grad():
            keys = F.normalize(source.encode(key, momentum, norm=track()), dim=-1)
        queue = self._queued(state["queue"], keys, labels)
        compared = {**state["queue"], "labels": queue["labels"]} if self.reference_quirk else state["queue"]

        def loss(params: Tensors) -> tuple[Tensor, Tensors]:
            made = source.forward(query, {**params, **stats}, norm=track())
            picked = self._instance_loss(F.normalize(made.features, dim=-1), keys, compared, labels)
            value = F.cross_entropy(made.logits, labels) + picked + diversity(made.logits, eps=1e-8)
            return value, made.stats

        grads, _, moved = gradient(loss, state["params"])
        with torch.no_grad():
            remembered = source.forward(weak, momentum, norm=track())
        return Adapted(
            {
                **self.moved(state, grads),
                "stats": {**stats, **moved},
                "momentum_model": momentum,
                "queue": queue,
                "bank": self._banked(state["bank"], remembered.features, remembered.logits.softmax(-1)),
                "seen": (state["seen"] + len(weak)) if state["seen"] < self.patience else state["seen"],
            }
        )

    def predict(self, source: SourceModel, state: State, inputs: Inputs) -> Tensor:
        """Return the logits (N, K) of the images with the tracked statistics."""
        assert inputs.images is not None
        return source.logits(inputs.images, {**state["params"], **state["stats"]})

    def _labels(self, state: State, features: Tensor, logits: Tensor) -> Tensor:
        """Return the pseudo-labels (N,) of features (N, D) and logits (N, K)."""
        held = min(int(state["bank"]["added"]), self.queue)
        if not held or state["seen"] < self.patience:
            return logits.argmax(-1)
        bank = F.normalize(state["bank"]["features"][:held], dim=-1)
        near = (F.normalize(features, dim=-1) @ bank.T).topk(min(self.neighbours, held), dim=-1).indices
        found: Tensor = state["bank"]["p"][near].mean(1).argmax(-1)
        return found

    def _instance_loss(self, query: Tensor, keys: Tensor, queue: Tensors, labels: Tensor) -> Tensor:
        """Return the mean loss of picking each query's own key among those of other classes."""
        others = (query @ queue["keys"].T).masked_fill(labels[:, None] == queue["labels"], -torch.inf)
        logits = torch.cat([(query * keys).sum(-1, keepdim=True), others], -1) / self.temperature
        return F.cross_entropy(logits, torch.zeros_like(labels))

    def _queued(self, queue: Tensors, keys: Tensor, labels: Tensor) -> Tensors:
        """Return the queue with new keys and their labels."""
        after = (queue["next"] + len(keys)) % self.queue
        return {**written(queue, queue["next"], {"keys": keys, "labels": labels}), "next": after}

    def _banked(self, bank: Tensors, features: Tensor, p: Tensor) -> Tensors:
        """Return the bank with new features and predictions."""
        after = bank["added"] + len(p)
        return {**written(bank, bank["added"], {"features": features, "p": p}), "added": after}
