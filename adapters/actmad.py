# SPDX-License-Identifier: Apache-2.0
"""ActMAD: match the mean and variance of activations, at each location, to those of source images."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from tta_bench.errors import BadInputError, IncompatibleError
from tta_bench.method import ALL_PRECISIONS, Adapted, Card, Inputs, SourceModel, State, Task
from tta_bench.optim import Optimizer, Tensors, gradient

from ._descent import Descending
from ._layers import NORMS
from ._source_images import averaged_moments, pooled_moments, source_batches, statistics_note

OUTPUTS, AVERAGES = ("after", "before"), ("batches", "images")


@dataclass(frozen=True)
class ActMad(Descending):
    """Move all weights until the activations of a test batch have the source images' mean and variance everywhere.

    For the output of each norm layer, mean m and unbiased variance v over the batch alone, for every channel at every
    location: ``loss = scale sum_layers [mean |m - m_s| + mean |v - v_s|]``, with m_s and v_s of source images.
    BatchNorm layers keep their stored statistics. The prediction is a second pass after the update.

    Source: Mirza et al., CVPR 2023, arXiv:2211.12870, eqs. 1 to 5.
    Differs: adaptation sees the images as they are, without training augmentation; dropout is off; a batch of one
    image, which has no variance, is predicted and changes nothing; transformers leave out the norms before the first
    attention, where the class token says nothing of the image.

    Attributes:
        steps: Updates for each batch.
        scale: Factor of the loss.
        layers: Names of the layers to match; empty: the BatchNorm layers, or without such layers all norm layers.
        average: Whether source moments are averaged over batches, as published, or pooled over all images.
        logits_from: Predict ``after`` the update by one more pass, or by the pass ``before`` the last update.
        samples: Source images for the statistics; all of them if there are fewer.
    """

    lr: float = 1e-3
    optimizer: Optimizer = "sgd"
    nesterov: bool = True
    weight_decay: float = 5e-4
    steps: int = 1
    scale: float = 0.5
    layers: tuple[str, ...] = ()
    average: Literal["batches", "images"] = "batches"
    logits_from: Literal["after", "before"] = "after"
    samples: int = 50000

    card: ClassVar[Card] = Card(
        paper="arXiv:2211.12870",
        title="ActMAD: Activation Matching to Align Distributions for Test-Time-Training",
        authors="Mirza, Muhammad Jehanzeb and Soneira, Pol Jané and Lin, Wei and Kozinski, Mateusz and Possegger, "
        "Horst and Bischof, Horst",
        venue="Conference on Computer Vision and Pattern Recognition",
        year=2023,
        category="online",
        updates="parameters",
        needs=frozenset({"gradients", "source_images"}),
        predicts="after",
        precision=ALL_PRECISIONS,
        idle=(("lr", 0.0),),
        parity="online/actmad",
        cost="2 forward + 1 backward; before the stream 1 forward over the source images",
        reference_licence="none stated",
        notes="Reads source images once, before the stream, without their labels. The published numbers are the lowest "
        "error over the run, chosen by test labels; ours are of the stream as it comes.",
    )
    presets: ClassVar[dict[str, dict[str, Any]]] = {
        "cifar10-c": {"lr": 0.01},
        "cifar100-c": {"lr": 0.001},
        "imagenet-c": {"lr": 2.5e-4},
        "torch-ttt": {
            "optimizer": "adam", "lr": 0.01, "weight_decay": 0.0, "steps": 3, "scale": 1.0, "average": "images",
        },
        "pocket": {"samples": 512},
    }  # fmt: skip

    def __post_init__(self) -> None:
        """Refuse values outside their range."""
        super().__post_init__()
        if self.steps < 1 or self.samples < 1 or not self.scale >= 0:
            raise BadInputError(
                "steps and samples must be 1 or more and scale 0 or more, "
                f"got {self.steps}, {self.samples} and {self.scale}"
            )
        if self.average not in AVERAGES or self.logits_from not in OUTPUTS:
            raise BadInputError(
                f"average must be one of {', '.join(AVERAGES)} and logits_from one of {', '.join(OUTPUTS)}, got "
                f"{self.average!r} and {self.logits_from!r}"
            )

    def tensors(self, source: SourceModel) -> Tensors:
        """Return every tensor of the encoder; the loss does not reach the classifier."""
        leaves = {name.rpartition(".")[2] for name in source.params}
        return source.weights(sorted(leaves), under="encoder")

    def notes(self, source: SourceModel) -> dict[str, str]:
        """Return which source images the statistics come from, and which layers are matched."""
        return {
            **statistics_note("mean and variance of activations", self.samples),
            "matched_layers": ", ".join(self._matched(source)),
        }

    def init_reads(self, available: int) -> int:
        """Return how many source images are read before the stream."""
        return min(self.samples, available)

    def init(self, source: SourceModel, task: Task) -> State:
        """Return the weights, the optimiser's state and the source moments of the matched layers."""
        names = self._matched(source)
        if not names:
            raise IncompatibleError(
                f"ActMad finds no norm layer in {source.name!r}; name the layers to match by layers=NAME,NAME"
            )
        moments = (averaged_moments if self.average == "batches" else pooled_moments)(
            self._outputs(source, task, names)
        )
        if not moments.mean:
            raise BadInputError(
                "ActMad takes variances of source images over each batch, which has one image; set a larger batch size "
                "or average=images"
            )
        return {**self.initial_state(source), "source_mean": moments.mean, "source_var": moments.var}

    def adapt(self, source: SourceModel, state: State, inputs: Inputs) -> Adapted:
        """Return the state after the updates, with the logits of the pass before the last of them if so wanted."""
        images = inputs.images
        assert images is not None
        if len(images) < 2:
            return Adapted(state)
        names = tuple(state["source_mean"])

        def loss(params: Tensors) -> tuple[Tensor, Tensor]:
            seen = source.observe(images, params, layers=names)
            away = images.new_zeros(())
            for name, output in seen.outputs.items():
                var, mean = torch.var_mean(output, 0)
                away = away + (mean - state["source_mean"][name]).abs().mean()
                away = away + (var - state["source_var"][name]).abs().mean()
            return self.scale * away, seen.logits

        for _ in range(self.steps):
            grads, _, logits = gradient(loss, state["params"])
            state = self.moved(state, grads)
        return Adapted(state, logits if self.logits_from == "before" else None)

    def _outputs(self, source: SourceModel, task: Task, names: tuple[str, ...]) -> Iterator[Tensors]:
        """Yield the outputs of the matched layers for each batch of source images."""
        for images, _ in source_batches(task, self.samples):
            with torch.no_grad():
                yield source.observe(images, layers=names).outputs

    def _matched(self, source: SourceModel) -> tuple[str, ...]:
        """Return the names of the layers that are matched."""
        if self.layers:
            return self.layers
        early = source.transformer.early if source.transformer else ()
        kinds = ("batch",) if any(layer.kind == "batch" for layer in source.layers) else NORMS
        return tuple(one.name for one in source.layers if one.kind in kinds and one.name not in early)
