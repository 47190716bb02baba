# SPDX-License-Identifier: Apache-2.0
"""CLIPTTA: the contrastive loss that CLIP was trained with, between images and their pseudo-captions."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from tta_bench.errors import BadInputError
from tta_bench.losses import entropy
from tta_bench.method import ALL_PRECISIONS, Adapted, Card, Inputs, SourceModel, State, Task
from tta_bench.norms import batch
from tta_bench.optim import Descent, Tensors, gradient

from ._descent import Descending
from ._otsu import otsu, separation
from ._texts import text_side
from ._visual_norms import NEEDS, encoded

EPS = 1e-6
ALPHA, TEXT = "alpha", "text."
OUTLIERS = ("none", "avg_contrastive", "max_inter_var")


class Tuned(NamedTuple):
    """The results of the steps on one batch: the state, and the loss before each."""

    state: State
    losses: Tensor


@dataclass(frozen=True)
class Cliptta(Descending):
    """Contrast the images of a batch with the captions of their most likely classes, and rehearse confident ones.

    With ``u_i`` the text of the class that image i is most like and ``Z = s x u^T`` over the batch,
    ``R = mean_i H(softmax(Z_i))``; ``Q = -sum_c q_c ln(q_c + 1e-6)``, q the mean prediction:
    ``loss = beta_tta (R(X) + R(M)) - beta_reg (Q(X) + Q(M))``. M is drawn at every step from a memory of the
    `shots` most confident images of each class. ``outliers`` also learns a threshold alpha of the best log-probability,
    which starts at Otsu's for each batch: ``w_i = sigmoid((score_i - alpha) / gamma)`` parts known classes from unknown
    ones, whose mean scores are driven apart, and R(X) takes the known alone. The prediction is a pass after the last
    step.

    Source: Lafon et al., NeurIPS 2025, "CLIPTTA: Robust Contrastive Vision-Language Test-Time Adaptation".
    Differs: logits have the model's own scale; where no image is taken as known, R is 0, where the published code has
    NaN. As there, the direction from captions to images counts only if the texts are tuned.

    Attributes:
        steps: Updates for each batch.
        shots: Images of each class in the memory; 0 for no memory.
        sample: Images drawn from the memory at each step, all classes together.
        beta_tta: Weight of the contrast.
        beta_reg: Weight of the spread of predictions over classes.
        hard: Contrast with the caption itself, and not with the prediction's own distribution over captions.
        memory_alone: The batch enters the loss through the memory alone, as in the published ImageNet script.
        tune_text: Whether the norm layers of the text tower are tuned too.
        scale: Factor s of the cosines in the loss.
        outliers: Objective of the threshold: ``none``, ``avg_contrastive`` or ``max_inter_var``.
        beta_ood: Its weight.
        gamma: Width of the soft threshold.
    """

    lr: float = 1e-4
    steps: int = 10
    shots: int = 4
    sample: int = 40
    beta_tta: float = 1.0
    beta_reg: float = 1.0
    hard: bool = False
    memory_alone: bool = False
    tune_text: bool = False
    scale: float = 100.0
    outliers: Literal["none", "avg_contrastive", "max_inter_var"] = "none"
    beta_ood: float = 1.0
    gamma: float = 0.005

    card: ClassVar[Card] = Card(
        paper="Lafon et al., NeurIPS 2025",
        title="CLIPTTA: Robust Contrastive Vision-Language Test-Time Adaptation",
        authors="Lafon, Marc and Hakim, Gustavo Adolfo Vargas and Rambour, Clément and Desrosiers, Christian and "
        "Thome, Nicolas",
        venue="Advances in Neural Information Processing Systems",
        year=2025,
        category="online",
        updates="parameters",
        needs=NEEDS,
        model="pocket-clip",
        fixed_shapes=False,
        grows=("images", "labels", "confidence"),
        precision=ALL_PRECISIONS,
        parity="vlm/cliptta",
        cost="22 forward + 20 backward, half of them over images of the memory",
        reference_licence="MIT",
        notes="Remembers test images, at most `shots` of each class. If all images of a batch are most like one class, "
        "the contrast has no gradient.",
    )
    presets: ClassVar[dict[str, dict[str, Any]]] = {
        "cifar10-c": {"steps": 10, "lr": 1e-4, "shots": 4, "sample": 40},
        "cifar100-c": {"steps": 10, "lr": 1e-4, "shots": 4, "sample": 40},
        "imagenet-c": {"steps": 10, "lr": 1e-4, "shots": 16, "sample": 64, "memory_alone": True},
        "open-set": {"outliers": "max_inter_var", "lr": 1e-4},
    }

    def __post_init__(self) -> None:
        """Refuse values outside their range."""
        super().__post_init__()
        if self.steps < 1 or self.sample < 1 or self.shots < 0:
            raise BadInputError(
                "steps and sample must be 1 or more and shots 0 or more, got "
                f"{self.steps}, {self.sample} and {self.shots}"
            )
        for name in ("beta_tta", "beta_reg", "beta_ood"):
            if not getattr(self, name) >= 0:
                raise BadInputError(f"{name} must be 0 or more, got {getattr(self, name)}")
        for name in ("scale", "gamma"):
            if not getattr(self, name) > 0:
                raise BadInputError(f"{name} must be above 0, got {getattr(self, name)}")
        if self.outliers not in OUTLIERS:
            raise BadInputError(f"outliers must be one of {', '.join(OUTLIERS)}, got {self.outliers!r}")
        if self.memory_alone and not self.shots:
            raise BadInputError("memory_alone needs shots of 1 or more, got 0")

    def descent(self) -> Descent:
        """Return the optimiser, whose epsilon is that of the published code."""
        return replace(super().descent(), eps=EPS)

    def tensors(self, source: SourceModel) -> Tensors:
        """Return the affine tensors of the image tower's norm layers, and those of the texts' if they are tuned."""
        if not self.tune_text:
            return source.normalisation()
        texts = {TEXT + name: p for name, p in text_side(source).normalisation().items()}
        return {**source.normalisation(), **texts}

    def init(self, source: SourceModel, task: Task) -> State:
        """Return the adapted tensors, the optimiser's state and an empty memory."""
        state, images = self.initial_state(source), source.image_shape
        if self.outliers != "none":
            params = {**state["params"], ALPHA: torch.zeros((), dtype=source.dtype, device=source.device)}
            state = {"params": params, "optimizer": self.descent().init(params)}
        empty = torch.zeros(0, dtype=source.dtype, device=source.device)
        return {
            **state, "images": empty.new_zeros(0, *images), "labels": empty.long(), "confidence": empty,
        }  # fmt: skip

    def draw(self, source: SourceModel, n: int, generator: torch.Generator) -> Tensor | None:
        """Return uniform numbers (1, steps, K, shots) that order the memory of each class at each step."""
        if not self.shots:
            return None
        shape = (1, self.steps, source.num_classes, self.shots)
        return torch.rand(shape, generator=generator, device=generator.device)

    def adapt(self, source: SourceModel, state: State, inputs: Inputs) -> Adapted:
        """Return the state after the steps."""
        assert inputs.images is not None
        return Adapted(self.tune(source, state, inputs.images, inputs.draws).state)

    def predict(self, source: SourceModel, state: State, inputs: Inputs) -> Tensor:
        """Return the logits (N, K) under the adapted tensors."""
        assert inputs.images is not None
        visual, classes = self._parted(source, state["params"])
        features = source.encode(inputs.images, visual, norm=batch())
        return text_side(source).logits(features, classes) if self.tune_text else source.head(features)

    def tune(self, source: SourceModel, state: State, images: Tensor, draws: Tensor | None) -> Tuned:
        """Take the steps on a batch."""
        state, losses = self.started(source, state, images), []
        for step in range(self.steps):
            drawn = self._drawn(source, state, draws, step)

            def loss(params: Tensors, drawn: Tensor | None = drawn) -> tuple[Tensor, None]:
                return self._loss(source, params, images, drawn), None

            grads, value, _ = gradient(loss, state["params"])
            state = self.moved(state, grads)
            losses.append(value)
        return Tuned(state, torch.stack(losses))

    def known(self, source: SourceModel, images: Tensor, params: Tensors) -> Tensor:
        """Return the score (N,) of images, which is higher for known classes: the best log-probability of cosines."""
        visual, _ = self._parted(source, params)
        x = F.normalize(encoded(source, images, visual), dim=-1)
        return (x @ source.head_weight().T).log_softmax(-1).amax(-1)

    def _parted(self, source: SourceModel, params: Tensors) -> tuple[Tensors, Tensor]:
        """Return the image tower's tensors, and the class features (K, D) under the texts'."""
        visual = {name: p for name, p in params.items() if name != ALPHA and not name.startswith(TEXT)}
        if not self.tune_text:
            return visual, source.head_weight()
        texts = {name.removeprefix(TEXT): p for name, p in params.items() if name.startswith(TEXT)}
        return visual, text_side(source).prototypes_with(texts)

    def _loss(self, source: SourceModel, params: Tensors, images: Tensor, drawn: Tensor | None) -> Tensor:
        visual, classes = self._parted(source, params)
        total = images.new_zeros(())
        if not self.memory_alone:
            x = F.normalize(encoded(source, images, visual), dim=-1)
            kept = x
            if self.outliers != "none":
                seen = (x @ source.head_weight().T).log_softmax(-1).amax(-1)
                kept = x[seen > params[ALPHA]]
                weighted = self.outliers == "max_inter_var"
                total = total + self.beta_ood * separation(seen, params[ALPHA], self.gamma, weighted=weighted)
            total = total + self.beta_tta * self._contrast(kept, classes) - self._spread(source, x)
        if drawn is not None and len(drawn):
            x = F.normalize(encoded(source, drawn, visual), dim=-1)
            total = total + self.beta_tta * self._contrast(x, classes) - self._spread(source, x)
        return total

    def _contrast(self, x: Tensor, classes: Tensor) -> Tensor:
        """Return R of unit features (M, D) with the captions of their most likely classes; 0 of none."""
        if not len(x):
            return x.new_zeros(())
        captions = classes[(x @ classes.T).argmax(-1)]
        z = self.scale * x @ captions.T
        if not self.tune_text:
            return self._each(z)
        return (self._each(z) + self._each(z.T)) / 2

    def _each(self, z: Tensor) -> Tensor:
        return -z.log_softmax(-1).diagonal().mean() if self.hard else entropy(z).mean()

    def _spread(self, source: SourceModel, x: Tensor) -> Tensor:
        """Return the weighted entropy of the mean prediction of unit features (M, D)."""
        q = (self.scale * x @ source.head_weight().T).softmax(-1).mean(0)
        return -self.beta_reg * (q * (q + EPS).log()).sum()

    @torch.no_grad()
    def started(self, source: SourceModel, state: State, images: Tensor) -> State:
        """Return the state with the batch in the memory and, for outliers, its own threshold."""
        visual, _ = self._parted(source, state["params"])
        x = F.normalize(encoded(source, images, visual), dim=-1)
        cosines = x @ source.head_weight().T
        if self.outliers != "none":
            seen = cosines.log_softmax(-1).amax(-1)
            threshold = otsu(seen)
            state = {**state, "params": {**state["params"], ALPHA: threshold}}
            images, cosines = images[seen > threshold], cosines[seen > threshold]
        if not self.shots:
            return state
        confidence, labels = (
            cosines.softmax(-1).max(-1) if len(cosines) else (cosines[:, 0], state["labels"][:0])
        )
        grown = {"images": images, "labels": labels, "confidence": confidence}
        grown = {name: torch.cat([state[name], new]) for name, new in grown.items()}
        kept = self._kept(grown["labels"], grown["confidence"])
        return {**state, **{name: value[kept] for name, value in grown.items()}}

    def _kept(self, labels: Tensor, confidence: Tensor) -> Tensor:
        """Return the rows that stay, by class; a class that overflows keeps its most confident, in that order."""
        rows: list[Tensor] = []
        for label in sorted(set(labels.tolist())):
            own = (labels == label).nonzero()[:, 0]
            if len(own) > self.shots:
                own = own[confidence[own].argsort(descending=True, stable=True)[: self.shots]]
            rows.append(own)
        return torch.cat(rows) if rows else labels[:0]

    def _drawn(self, source: SourceModel, state: State, draws: Tensor | None, step: int) -> Tensor | None:
        """Return images of the memory: an equal part of each class, or all it has."""
        if not self.shots:
            return None
        assert draws is not None
        classes = source.num_classes
        most = max(self.sample, classes) if self.memory_alone else self.sample
        part = max(1, min(most, self.shots * classes) // classes)
        rows: list[Tensor] = []
        for label in sorted(set(state["labels"].tolist())):
            own = (state["labels"] == label).nonzero()[:, 0]
            if len(own) > part:
                order = draws[0, step, label, : len(own)].argsort(stable=True)
                own = own[order[:part].to(own.device)]
            rows.append(own)
        images: Tensor = state["images"]
        return images[torch.cat(rows)] if rows else images[:0]
