# SPDX-License-Identifier: Apache-2.0
"""APM: fit a small location-queried network to one image's teacher feature, and classify its own feature."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from tta_bench.errors import BadInputError
from tta_bench.method import Adapted, Card, Inputs, Method, SourceModel, State, Task

from ._apm_student import SIZES, Adam, Dims, Fit, Moments, Student, fit  # noqa: TID251 (a sibling)

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
LEFTOVER = {"gradient_accumulation": 1.0, "scaled_accumulation": 1 / 65536, "all": 1 / 65536}
CARRIED = ("carry_adam", "all")
CHOICES: dict[str, tuple[str, ...]] = {
    "size": tuple(SIZES),
    "read": ("published", "last"),
    "input": ("image", "none"),
    "pooling": ("attention", "mean"),
    "target": ("raw", "unit"),
    "reference_quirk": ("none", "carry_adam", *LEFTOVER),
}


@dataclass(frozen=True)
class Apm(Method):
    """Fit a fresh location-queried student to each image's teacher feature and classify what it gives.

    The student maps ``[column of the image; code of a location]`` by a shared network to one feature per
    location and pools them to ``y``. From weights drawn ``N(0, weight_std^2)`` it takes Adam steps on
    ``mean_j (y_j - t_j)^2``, where ``t`` is the source model's feature of the same image; the scores are
    ``scale * cos(y, text_c)``. A student that fits ``t`` exactly predicts what the source model predicts, so
    the source model's scores on the same image are recorded beside every prediction.

    Source: Modi and Rawat, NeurIPS 2024, arXiv:2410.20535, and its published code.
    Differs: Adam and its learning rate are fresh for every image, gradients are those of the current update,
    and the head for colours, which has no loss there, is left out. The student sees the source model's input
    image, resized to its own input and normalised by ImageNet's mean and deviation; the published one resizes
    the original photograph to 448 x 448 without keeping its aspect. ``size="published"`` has the published
    sizes; the default is small, and its ``lr`` of 1e-3 is ten times the published one because at 1e-4 a small
    student is far from its target after 20 updates. ``input="none"`` takes the image's column away, which
    leaves a student that knows nothing of the image but its target: the control for what the image adds.

    Attributes:
        iterations: Forward passes before the prediction, 1 or more.
        lr: Learning rate.
        betas: Decay rates of Adam's moments.
        eps: Added to the root of Adam's second moment.
        weight_decay: Coefficient of the L2 term in the gradient.
        weight_std: Standard deviation of the fresh weights and biases.
        size: Named sizes of the student.
        dims: Sizes of the student by number; None takes those of `size`.
        read: ``"published"`` reads the last iteration's forward pass, before its update; ``"last"`` runs one
            more pass after it.
        input: ``"image"``, or ``"none"`` for the control without the image.
        pooling: ``"attention"`` by a learned query as in the published code, or the ``"mean"`` of the
            paper's figure.
        target: The teacher's feature as it is (``"raw"``) or scaled to length 1 (``"unit"``).
        reference_quirk: Defect of the published loop to reproduce, for parity alone; those that carry Adam's
            state over need batches of one image and no reset.
        lr_every: Updates after which a carried learning rate falls to a tenth.
    """

    iterations: int = 20
    lr: float = 1e-3
    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-8
    weight_decay: float = 0.0
    weight_std: float = 0.01
    size: Literal["pocket", "published"] = "pocket"
    dims: Dims | None = None
    read: Literal["published", "last"] = "published"
    input: Literal["image", "none"] = "image"
    pooling: Literal["attention", "mean"] = "attention"
    target: Literal["raw", "unit"] = "raw"
    reference_quirk: Literal[
        "none", "carry_adam", "gradient_accumulation", "scaled_accumulation", "all"
    ] = "none"  # fmt: skip
    lr_every: int = 200

    card: ClassVar[Card] = Card(
        paper="arXiv:2410.20535",
        title="Asynchronous Perception Machine For Efficient Test-Time-Training",
        needs=frozenset({"features", "text", "gradients"}),
        reset="image",
        model="pocket-clip",
        independent=True,
        draw_device="device",
        parity="apm/apm",
        notes="A converged student predicts what its teacher does; compare with the teacher's scores. A student of "
        "the published size has 22 million weights: adapt few images at a time.",
    )
    presets: ClassVar[dict[str, dict[str, Any]]] = {
        "published": {"size": "published", "lr": 1e-4},
        "no-image": {"input": "none"},
    }

    def __post_init__(self) -> None:
        """Refuse unknown choices and a fit without an iteration."""
        for name, choices in CHOICES.items():
            if getattr(self, name) not in choices:
                raise BadInputError(
                    f"{name} must be one of {', '.join(choices)}, got {getattr(self, name)!r}"
                )
        if self.iterations < 1:
            raise BadInputError(f"iterations must be 1 or more, got {self.iterations}")

    def student(self, source: SourceModel) -> Student:
        """Return the student's sizes for this source model."""
        dims = SIZES[self.size] if self.dims is None else Dims(*self.dims)
        return Student(dims, source.dim, self.pooling)

    def init(self, source: SourceModel, task: Task) -> State:
        """Return an empty state; Adam's moments only where a quirk carries them over."""
        if self.reference_quirk not in CARRIED:
            return {}
        zeros = torch.zeros(1, self.student(source).size, dtype=source.dtype, device=source.device)
        done = torch.zeros((), dtype=torch.int64, device=source.device)
        return {"first": zeros, "second": zeros.clone(), "done": done}

    def draw(self, source: SourceModel, n: int, generator: torch.Generator) -> Tensor:
        """Return fresh weights (N, P), drawn in float32 so that every precision starts from the same ones."""
        shape = (n, self.student(source).size)
        return torch.randn(shape, generator=generator, device=generator.device) * self.weight_std

    def adapt(self, source: SourceModel, state: State, inputs: Inputs) -> Adapted:
        """Return the scores of students fitted to the images of the batch, and those of their teacher."""
        assert inputs.features is not None
        # The update after the published reading has no effect but on what a quirk carries over.
        updates = self.iterations - (self.read == "published" and self.reference_quirk not in CARRIED)
        course = self.fit(source, state, inputs, updates)
        read = course.predictions[self.iterations - (self.read == "published")]
        if self.reference_quirk in CARRIED:
            first, second, done = course.moments
            state = {"first": first, "second": second, "done": torch.full_like(state["done"], done)}
        return Adapted(state, source.head(read), source.head(inputs.features))

    def fit(self, source: SourceModel, state: State, inputs: Inputs, updates: int) -> Fit:
        """Fit a student to each image of the batch and return the course of losses and predictions.

        Raises:
            BadInputError: If Adam's state is to be carried through a batch of more than one image.
        """
        assert inputs.images is not None
        assert inputs.features is not None
        carried = self.reference_quirk in CARRIED
        if carried and len(inputs.images) != 1:
            raise BadInputError(
                f"reference_quirk={self.reference_quirk!r} carries Adam's state over and needs batches "
                f"of one image, got {len(inputs.images)}; set batch size 1 and reset 'never'"
            )
        student = self.student(source)
        adam = Adam(
            self.lr, self.betas, self.eps, self.weight_decay,
            every=self.lr_every if carried else 0,
            leftover=LEFTOVER.get(self.reference_quirk, 0.0),
        )  # fmt: skip
        start = Moments(state["first"], state["second"], int(state["done"])) if carried else None
        target = inputs.features if self.target == "raw" else F.normalize(inputs.features, dim=-1)
        weights = inputs.draws.to(target)
        patches = student.patches(self._seen(student.dims, inputs.images)) if self.input == "image" else None
        return fit(student, weights, patches, target, adam, updates, start)

    @staticmethod
    def _seen(dims: Dims, images: Tensor) -> Tensor:
        """Return images (N, 3, H, W) in [0, 1] at the student's size with ImageNet's normalisation."""
        if tuple(images.shape[-2:]) != tuple(dims.image):
            images = F.interpolate(images, size=dims.image, mode="bilinear", antialias=True)
        mean, std = (images.new_tensor(values).view(-1, 1, 1) for values in (MEAN, STD))
        return (images - mean) / std
