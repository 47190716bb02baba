# SPDX-License-Identifier: Apache-2.0
"""One golden case of the online methods, and the plan by which a method replays it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from tta_bench.method import Inputs, Method, State
from tta_bench.models.source import SourceModel
from tta_bench.parity.folder import Entries
from tta_bench.parity.plans import method as method


@dataclass(frozen=True)
class Case:
    """The description of one case in the folder.

    Attributes:
        method: Golden method.
        name: Name of the case.
        info: Its entry in the manifest.
        manifest: The whole manifest.
        arrays: Its arrays by their names without the case: ``logits``, ``param__...`` and extra inputs.
        source: Its source model.
        stream: The batches (B, C, H, W), in order.
        split: The source images and labels of the folder.
    """

    method: str
    name: str
    info: Mapping[str, Any]
    manifest: Mapping[str, Any]
    arrays: Mapping[str, Tensor]
    source: SourceModel
    stream: tuple[Tensor, ...]
    split: GoldenSplit | None

    @property
    def values(self) -> Mapping[str, Any]:
        """The hyper-parameters of the reference."""
        where = f"the hyper-parameters of case {self.method}/{self.name}"
        return Entries(self.info.get("hyperparameters", {}), where)


@dataclass(frozen=True)
class GoldenSplit:
    """Source images (B, M, C, H, W) and labels (B, M), by batches as they were recorded."""

    images: Tensor
    labels: Tensor

    def __len__(self) -> int:
        """Return the number of images."""
        return self.labels.numel()

    def batch(self, index: int, size: int) -> tuple[Tensor, Tensor]:
        """Return images (M, C, H, W) and labels (M,) of batch ``index``, wrapping at the end."""
        rows = (torch.arange(size) + index * size) % len(self)
        return self.images.flatten(0, 1)[rows], self.labels.flatten()[rows].long()


def images_alone(case: Case, index: int, images: Tensor) -> Inputs:
    """Return inputs that hold the images of a batch and nothing else."""
    return Inputs(images=images)


def adapted_tensors(state: State) -> Mapping[str, Tensor]:
    """Return the adapted tensors of a state by name, from its entry ``"params"``."""
    tensors: Mapping[str, Tensor] = state.get("params", {})
    return tensors


def no_tensors(state: State) -> Mapping[str, Tensor]:
    """Return no tensors."""
    return {}


def as_built(case: Case, state: State) -> State:
    """Return the first state as the method builds it."""
    return state


@dataclass(frozen=True)
class Plan:
    """A plan for replaying a case with a method.

    Attributes:
        method: An instance with the hyper-parameters of the case.
        inputs: From case, batch index and images (B, C, H, W) to the step's inputs: supplies the draws, views
            and features that the reference had.
        start: From the case and the method's first state to the one that the reference started from.
        tensors: From a state to the tensors that ``param__...`` may name: those of the network that predicts
            by their own names, those of an averaged one as ``teacher.<name>``.
        reset_each_batch: Whether the state is reset before every batch.
        per_image: Whether every image is an episode of its own; the tensors are those after the last image.
        built: From the first state, as the method builds it, to tensors that arrays of their names are results for; a
            vector may be the end of a golden one.
        observed: From the state after a step to tensors that arrays of their names hold for all steps.
        sums: Whether the stored sums over all parameters mean anything.
        tolerance: Absolute tolerance of the scores instead of the rule of the family; every best class must then
            be that of the golden scores.
        rewinds: Whether a reset also rewinds what `inputs` gives; else the batch index runs on through it.
    """

    method: Method
    inputs: Callable[[Case, int, Tensor], Inputs] = images_alone
    start: Callable[[Case, State], State] = as_built
    tensors: Callable[[State], Mapping[str, Tensor]] = adapted_tensors
    built: Callable[[State], Mapping[str, Tensor]] = no_tensors
    observed: Callable[[State], Mapping[str, Tensor]] = no_tensors
    reset_each_batch: bool = False
    per_image: bool = False
    sums: bool = True
    tolerance: float | None = None
    rewinds: bool = True
