# SPDX-License-Identifier: Apache-2.0
"""APM: fit a small location-queried network to one image's teacher feature, and classify its own feature."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from tta_bench.errors import BadInputError, IncompatibleError
from tta_bench.method import (
    ALL_PRECISIONS,
    Adapted,
    Card,
    Cost,
    Inputs,
    Method,
    SourceModel,
    State,
    Task,
)
from tta_bench.optim import Descent

from ._adam import Adam, Moments
from ._cost import adam_bytes, passes_by_formula
from ._dims import SIZES, Dims, Student, seen, to_dims
from ._fit import Engine, Fit, Way, choose, fit, make_engine
from ._islands import Colours, Islands, islands
from ._reference import forward as student_forward

LEFTOVER = {"gradient_accumulation": 1.0, "scaled_accumulation": 1 / 65536, "all": 1 / 65536}
CARRIED = ("carry_adam", "all")
CHOICES: dict[str, tuple[str, ...]] = {
    "size": tuple(SIZES),
    "read": ("published", "last"),
    "input": ("image", "none"),
    "pooling": ("attention", "mean"),
    "target": ("raw", "unit"),
    "engine": ("auto", "reference", "fast", "active"),
    "products": ("full", "tf32", "bfloat16"),
    "reference_quirk": ("none", "carry_adam", *LEFTOVER),
}


@dataclass(frozen=True)
class Apm(Method):
    """Fit a fresh location-queried student to each image's teacher feature and classify what it gives.

    The student maps ``[column of the image; code of a location]`` by a shared network to one feature per
    location and pools them to ``y``. From weights drawn ``N(0, weight_std^2)`` it takes Adam steps on
    ``mean_j (y_j - t_j)^2``, where ``t`` is the source model's feature of the same image; the scores are
    ``scale * cos(y, text_c)``, or those of the source model's own linear head. A student that fits ``t`` exactly
    predicts what the source model predicts, so the source model's scores on the same image are recorded beside
    every prediction.

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
        size: Named sizes of the student; those with a number have so many million weights with a feature of 768.
        dims: Sizes of the student by number; None takes those of `size`.
        read: ``"published"`` reads the last iteration's forward pass, before its update; ``"last"`` runs one
            more pass after it.
        input: ``"image"``, or ``"none"`` for the control without the image.
        level: Layer of the teacher whose class token, through the teacher's own final norm and projection, is the
            target; None for the teacher's feature. Negative numbers count from the last layer.
        pooling: ``"attention"`` by a learned query as in the published code, or the ``"mean"`` of the
            paper's figure.
        target: The teacher's feature as it is (``"raw"``) or scaled to length 1 (``"unit"``).
        stop_loss: Read an image at the first pass whose loss is at most this; 0 never stops early.
        stride: Every how many-th row and column of the location grid is used; more than 1 is quicker and
            changes the prediction.
        engine: How it is computed, with equal results: ``"reference"`` as it is described, ``"fast"``,
            ``"active"``, or ``"auto"`` by device and size.
        products: Precision of the fast engine's inner products; ``"tf32"`` acts on GPUs alone.
        reference_quirk: Defect of the published loop to reproduce, for parity alone; those that carry Adam's
            state over need batches of one image and no reset.
        lr_every: Updates after which a carried learning rate falls to a tenth; 0 for never.
    """

    iterations: int = 20
    lr: float = 1e-3
    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-8
    weight_decay: float = 0.0
    weight_std: float = 0.01
    size: Literal["pocket", "7m", "14m", "published", "38m", "53m"] = "pocket"
    dims: Dims | None = None
    read: Literal["published", "last"] = "published"
    input: Literal["image", "none"] = "image"
    pooling: Literal["attention", "mean"] = "attention"
    target: Literal["raw", "unit"] = "raw"
    level: int | None = None
    stop_loss: float = 0.0
    stride: int = 1
    engine: Engine = "auto"
    products: Literal["full", "tf32", "bfloat16"] = "full"
    reference_quirk: Literal[
        "none", "carry_adam", "gradient_accumulation", "scaled_accumulation", "all"
    ] = "none"  # fmt: skip
    lr_every: int = 200

    card: ClassVar[Card] = Card(
        paper="arXiv:2410.20535",
        title="Asynchronous Perception Machine For Efficient Test-Time-Training",
        authors="Modi, Rajat and Rawat, Yogesh Singh",
        venue="Advances in Neural Information Processing Systems",
        year=2024,
        category="episodic",
        updates="parameters",
        needs=frozenset({"features", "gradients"}),
        reset="image",
        model="pocket-clip",
        independent=True,
        draw_device="device",
        precision=ALL_PRECISIONS,
        parity="apm/apm",
        cost="1 forward; 20 forward + 19 backward of the small student",
        notes="A converged student predicts what its teacher does; compare with the teacher's scores. A student of "
        "the published size has 22 million weights: adapt few images at a time.",
    )
    presets: ClassVar[dict[str, dict[str, Any]]] = {
        "published": {"size": "published", "lr": 1e-4},
        "no-image": {"input": "none"},
    }

    def __post_init__(self) -> None:
        """Refuse unknown choices and values that no fit could have."""
        for name, choices in CHOICES.items():
            if getattr(self, name) not in choices:
                raise BadInputError(
                    f"{name} must be one of {', '.join(choices)}, got {getattr(self, name)!r}"
                )
        Descent("adam", self.lr, betas=self.betas, weight_decay=self.weight_decay)
        for name, least in (("iterations", 1), ("stride", 1), ("stop_loss", 0), ("lr_every", 0)):
            if not least <= getattr(self, name) < math.inf:
                raise BadInputError(f"{name} must be a number of {least} or more, got {getattr(self, name)}")
        for name in ("eps", "weight_std"):
            if not 0 < getattr(self, name) < math.inf:
                raise BadInputError(f"{name} must be a number above 0, got {getattr(self, name)}")
        if self.dims is not None:
            to_dims(self.dims)
        if self.products != "full" and self.engine in ("reference", "active"):
            raise BadInputError(
                f"products={self.products!r} needs engine 'fast', got {self.engine!r}; leave one of them out"
            )

    def check_protocol(self, reset: str, batch_size: int) -> None:
        """Refuse a protocol under which a quirk that carries Adam's state over would carry nothing.

        Raises:
            BadInputError: Unless nothing is carried, or batches have one image and nothing is ever reset.
        """
        if self._carries and (reset != "never" or batch_size != 1):
            raise BadInputError(
                f"reference_quirk={self.reference_quirk!r} carries Adam's state from image to image and needs reset "
                f"'never' and batch size 1, got reset {reset!r} and batch size {batch_size}; set both or leave it out"
            )

    @property
    def _carries(self) -> bool:
        return self.reference_quirk in CARRIED

    def student(self, source: SourceModel) -> Student:
        """Return the student's sizes for this source model."""
        dims = SIZES[self.size] if self.dims is None else to_dims(self.dims)
        return Student(dims, source.dim, self.pooling, self.stride)

    def init(self, source: SourceModel, task: Task) -> State:
        """Return an empty state; Adam's moments only where a quirk carries them over.

        Raises:
            IncompatibleError: If a target of length 1 is asked for and the source model has no text side.
        """
        if self.target == "unit" and source.text is None:
            raise IncompatibleError(
                "target='unit' needs scores that ignore the feature's length, which the linear head of "
                f"{source.name!r} does not; choose target='raw' or a CLIP-like model"
            )
        if not self._carries:
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
        inputs = self._at_level(source, inputs)
        assert inputs.features is not None
        carried = self._carries
        # The update after the published reading has no effect but on what a quirk carries over.
        updates = self.iterations - (self.read == "published" and not carried)
        course = self.fit(source, state, inputs, updates, keep=carried)
        read = self._read(course)
        if carried:
            first, second, done = course.moments
            state = {"first": first, "second": second, "done": torch.full_like(state["done"], done)}
        return Adapted(state, source.head(read), source.head(inputs.features))

    def fit(
        self,
        source: SourceModel,
        state: State,
        inputs: Inputs,
        updates: int,
        *,
        start: Moments | None = None,
        keep: bool = True,
    ) -> Fit:
        """Fit a student to each image of the batch and return the course of losses and predictions.

        Args:
            source: The teacher.
            state: What `init` returned.
            inputs: Images, features, and weights (N, P) to start from as the draws.
            updates: Number U of updates.
            start: Moments to go on from; None for those of the state, or none.
            keep: Whether weights and moments are handed back as well.

        Raises:
            BadInputError: If Adam's state is to be carried through a batch of more than one image.
        """
        assert inputs.images is not None
        assert inputs.features is not None
        carried = self._carries
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
        if carried and start is None:
            start = Moments(state["first"], state["second"], int(state["done"]))
        target = inputs.features if self.target == "raw" else F.normalize(inputs.features, dim=-1)
        way = Way(self._engine(student, source), self.products, self.stop_loss, keep)
        patches = self._patches(student, inputs.images)
        return fit(student, inputs.draws.to(target), patches, target, adam, updates, start, way)

    def respond(self, source: SourceModel, weights: Tensor, images: Tensor) -> Tensor:
        """Return what students with given weights (N, P) say (N, D) to images (N, 3, H, W) in [0, 1]."""
        student = self.student(source)
        with torch.no_grad():
            return student_forward(student, student.unpack(weights), self._patches(student, images))

    def islands(
        self, source: SourceModel, inputs: Inputs, generator: torch.Generator, colours: Colours | bool = False
    ) -> Islands:
        """Fit students as `adapt` does and return what each of their locations holds.

        Args:
            source: The teacher; it needs neither texts nor a head.
            inputs: One batch, with features and draws.
            generator: Draws the head for colours.
            colours: How that head is fitted; True for the usual way, False leaves the colours out.

        Raises:
            BadInputError: If images are read before the last update, or Adam's state is carried over.
        """
        assert inputs.images is not None
        if self.stop_loss or self._carries:
            raise BadInputError(
                "islands are those of the last update on a fresh student, got "
                f"stop_loss={self.stop_loss} and reference_quirk={self.reference_quirk!r}; leave both out"
            )
        inputs = self._at_level(source, inputs)
        assert inputs.images is not None
        fitted = self.fit(source, {}, inputs, self.iterations - (self.read == "published"))
        student = self.student(source)
        seen = self._patches(student, inputs.images)
        how = colours if isinstance(colours, Colours) else Colours() if colours else None
        return islands(student, fitted.weights, seen, inputs.images, generator, how)

    def location_student(self, targets: Tensor) -> Student:
        """Return the sizes of a student whose locations are its outputs, for targets (N, H, W, D)."""
        dims = SIZES[self.size] if self.dims is None else to_dims(self.dims)
        grid = (int(targets.shape[1]), int(targets.shape[2]))
        return Student(dims._replace(grid=grid, heads=0), int(targets.shape[3]), "none")

    def fit_locations(
        self, images: Tensor, targets: Tensor, weights: Tensor, updates: int, *, start: Moments | None = None
    ) -> Fit:
        """Fit a student's location outputs to one feature per location of the teacher.

        Args:
            images: (N, 3, H', W') in [0, 1].
            targets: (N, H, W, D); a location that is NaN is held out.
            weights: (N, P) to start from, of `location_student`.
            updates: Number U of updates.
            start: Adam's moments to continue from.

        Returns:
            The course; its predictions are (U + 1, N, D, H * W).

        Raises:
            BadInputError: If the engine takes one target per image only.
        """
        student = self.location_student(targets)
        adam = Adam(self.lr, self.betas, self.eps, self.weight_decay)
        way = Way(choose(self.engine, student, targets.device), self.products)
        patches = self._patches(student, images)
        wanted = targets.flatten(1, 2).mT.contiguous()
        return fit(student, weights.to(targets), patches, wanted, adam, updates, start, way)

    def _at_level(self, source: SourceModel, inputs: Inputs) -> Inputs:
        """Return the inputs with the teacher's features of the level that was asked for."""
        if self.level is None:
            return inputs
        assert inputs.images is not None
        with torch.no_grad():
            return inputs._replace(features=source.encode_level(inputs.images, self.level))

    def notes(self, source: SourceModel) -> dict[str, str]:
        """Return the engine that device and size came to."""
        return {"engine": self._engine(self.student(source), source)}

    def costs(self, source: SourceModel, inputs: Inputs) -> tuple[Cost, ...]:
        """Return the cost of teacher, student and optimiser for one image.

        The active engine leaves out what is zero, so its passes have no formula; the count is of the first
        iteration, where it leaves out least.
        """
        assert inputs.images is not None
        assert inputs.features is not None
        student = self.student(source)
        name, weights = self._engine(student, source), inputs.draws.to(inputs.features)
        patches = self._patches(student, inputs.images)
        made = make_engine(name, student, weights, torch.zeros_like(weights), patches, inputs.features)
        made.forward()
        forward, backward = passes_by_formula(name, student, image=patches is not None) or (None, None)
        updates = self.iterations - (self.read == "published")
        return (
            Cost("student forward", updates + 1, forward, work=made.forward),
            Cost("student backward", updates, backward, work=made.backward),
            Cost("optimiser", updates, 0, adam_bytes(student, inputs.draws.element_size())),
        )

    def _engine(self, student: Student, source: SourceModel) -> Engine:
        return "fast" if self.products == "bfloat16" else choose(self.engine, student, source.device)

    def _read(self, course: Fit) -> Tensor:
        """Return the predictions (N, D) that count: the last one that is read, or the first that is good enough."""
        last = self.iterations - (self.read == "published")
        if not self.stop_loss:
            return course.predictions[last]
        good = course.losses[:last] <= self.stop_loss
        index = torch.where(good.any(0), good.to(torch.int8).argmax(0), last)
        return course.predictions[index, torch.arange(len(index), device=index.device)]

    def _patches(self, student: Student, images: Tensor) -> Tensor | None:
        return student.patches(seen(student.dims, images)) if self.input == "image" else None
