# SPDX-License-Identifier: Apache-2.0
"""One cell: names and plain values from which any process computes the same numbers."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from tta_bench.spec.digest import digest
from tta_bench.spec.model_options import ModelOptions
from tta_bench.spec.plain import to_plain
from tta_bench.spec.protocol import Protocol
from tta_bench.spec.request import SuiteUse
from tta_bench.spec.texts import masked

ID_LENGTH = 20


class Shift(NamedTuple):
    """One distribution: a dataset, and its corruption with a severity, or its domain, which has none."""

    dataset: str
    corruption: str = ""
    severity: int = 0

    def __str__(self) -> str:
        """Return ``dataset``, ``dataset:domain`` or ``dataset:corruption:severity``."""
        return ":".join(str(part) for part in self if part)


@dataclass(frozen=True)
class PluginFile:
    """The file that defines a method.

    Attributes:
        path: Where it lay when the cell was planned.
        sha256: Of its bytes.
    """

    path: str
    sha256: str


def _label(default: Any) -> Any:
    """Declare a field that no number depends on, so that the id leaves it out."""
    return field(default=default, metadata={"label": True})


@dataclass(frozen=True)
class Cell:
    """One method on one model over one stream, under one protocol and seed.

    Attributes:
        method: Name of the method.
        hyperparameters: All of them, defaults included.
        method_hash: Hash of the source text that the method's steps come from.
        model: Name of the source model.
        dataset: Name of the dataset.
        shifts: Names of the shifts, in the order of the stream.
        subset: Which images of each shift.
        batch_size: Images per step.
        reset: When the method forgets.
        seed: Of order, draws and random weights.
        data_seed: Of the corruptions' random numbers.
        scenario: How shifts and images follow one another.
        precision: Floating type of model and images.
        device: Kind of device.
        pretrained: False for random weights.
        chosen: How the hyper-parameters were chosen.
        preset: Name of the preset; empty: none.
        prompts: Name of the prompt templates; empty: the default. The sentences are in the protocol.
        views: Recipe by which views are made; it is in the protocol where there are views.
        reward: Name of the reward model, for a method that needs one; empty otherwise. Its weights are in the protocol.
        data_options: Options of the readers; what they change is in the hash of the data.
        variant: The hyper-parameters that differ from the method's defaults, as text.
        weights_file: File of weights that `model` ends in; their hash is in the protocol, so that no number depends on
            where they lie.
        plugin: The file that defines the method; None if it is registered.
        suite: The suite that the run follows.
        model_options: What was said of the model in place of what its library knows.
        looks: Settings that the sweep of which it is part tries on the same labels; 0: it is part of none.
        files: The files that define its dataset and its model, where plug-in files do.
        plugin_code: Hash of the code of a model and a dataset that an outside package registers, by ``model`` and
            ``dataset``.
        in_process: Hash of each part that is an object of the process that made it, by ``method``, ``model`` or
            ``dataset``; such a cell runs nowhere else.
    """

    method: str
    hyperparameters: Mapping[str, Any]
    method_hash: str
    model: str
    dataset: str
    shifts: tuple[str, ...]
    subset: str
    batch_size: int
    reset: str
    seed: int = 0
    data_seed: int = 0
    scenario: str = "iid"
    precision: str = "float32"
    device: str = "cpu"
    pretrained: bool = True
    chosen: str = "published"
    preset: str = ""
    model_options: ModelOptions = field(default_factory=ModelOptions)
    plugin_code: Mapping[str, str] = field(default_factory=dict)
    in_process: Mapping[str, str] = field(default_factory=dict)
    prompts: str = _label("")
    views: str = _label("device")
    reward: str = _label("")
    data_options: Mapping[str, Any] = field(default_factory=dict, metadata={"label": True})
    variant: str = _label("")
    weights_file: str = _label("")
    plugin: PluginFile | None = _label(None)
    suite: SuiteUse | None = _label(None)
    looks: int = _label(0)
    files: tuple[PluginFile, ...] = _label(())

    def each_shift(self) -> tuple[Shift, ...]:
        """Return the shifts in the order of the stream."""
        return tuple(_parse_shift(self.dataset, text) for text in self.shifts)

    @property
    def model_name(self) -> str:
        """Return the name of the source model without the file of its weights."""
        return self.model.removesuffix(f":{self.weights_file}") if self.weights_file else self.model

    @property
    def label(self) -> str:
        """Return what progress lines call the cell."""
        changed = f"[{self.variant}]" if self.variant else ""
        where = self.shifts[0] if len(self.shifts) == 1 else f"{self.dataset} ({len(self.shifts)} shifts)"
        seed = f" · seed {self.seed}" if self.seed else ""
        return f"{self.method}{changed} · {self.model} · {where}{seed}"

    def identity(self) -> dict[str, Any]:
        """Return the fields that the id depends on; of a device its kind, whichever of several it is."""
        labels = {one.name for one in dataclasses.fields(self) if one.metadata.get("label")}
        facts = {name: value for name, value in to_plain(self).items() if name not in labels}
        return facts | {"model": self.model_name, "device": self.device.partition(":")[0]}

    def id(self, protocol: Protocol) -> str:
        """Return the content-addressed id: the hash of the cell and of what its names turned out to hold."""
        return digest(_without_secrets([self.identity(), to_plain(protocol)]), ID_LENGTH)


def _without_secrets(value: Any) -> Any:
    """Return plain values whose texts are as a manifest holds them."""
    if isinstance(value, str):
        return masked(value)
    if isinstance(value, dict):
        return {key: _without_secrets(one) for key, one in value.items()}
    return [_without_secrets(one) for one in value] if isinstance(value, list) else value


def _parse_shift(dataset: str, text: str) -> Shift:
    """Return the shift that a name stands for; the name of the dataset may hold colons itself."""
    _, corruption, severity = (*text.removeprefix(dataset).split(":"), "", "", "")[:3]
    return Shift(dataset, corruption, int(severity or 0))
