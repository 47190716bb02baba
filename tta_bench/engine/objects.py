# SPDX-License-Identifier: Apache-2.0
"""Builds a cell's objects from its names: method, dataset, source model, stream and source split."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from tta_bench.data.dataset import Dataset, OpenRequest, Shift, find_dataset
from tta_bench.data.images.checked import open_checked
from tta_bench.data.images.decoded import DecodedOnce
from tta_bench.data.images.preprocess import Preprocess
from tta_bench.data.images.source import ImageSource
from tta_bench.data.stream import Part, Stream, choose
from tta_bench.engine.live import Kind, Live
from tta_bench.engine.split import open_split, source_data
from tta_bench.engine.watch import Watch
from tta_bench.errors import BadInputError, IncompatibleError, PluginError, TTABenchError
from tta_bench.hyperparameters import create_method, load_plugin, plugin_method, source_hash
from tta_bench.method import Method
from tta_bench.models.classes import display_names
from tta_bench.models.loading import ModelRequest, dtype_of, load_model, ready
from tta_bench.models.own import OwnModel
from tta_bench.models.source import SourceModel
from tta_bench.spec import Cell, PluginFile, canonical
from tta_bench.spec.plain import to_plain

KEPT_MODELS = 4


class Objects:
    """The objects behind cells; what was used lately is kept.

    Args:
        live: Objects of this process that some cells name.
        workers: Processes that decode images; None: the kind of data decides.
    """

    def __init__(self, live: Live | None = None, workers: int | None = None) -> None:
        self._live, self.workers = live or Live(), workers
        self._methods: dict[str, Method] = {}
        self._files: set[PluginFile] = set()
        self._datasets: dict[tuple[str, str, str], Dataset] = {}
        self._models: OrderedDict[tuple[object, ...], tuple[SourceModel, Watch]] = OrderedDict()
        self._images: dict[tuple[Shift, str], ImageSource] = {}
        self._splits: dict[str, ImageSource] = {}
        self._decoded: dict[tuple[int, Preprocess], DecodedOnce] = {}

    def method(self, cell: Cell) -> Method:
        """Return the method of a cell with its hyper-parameters.

        Raises:
            PluginError: If its code is not that with which the cell was planned.
        """
        if "method" in cell.in_process:
            found: Method = self._get(cell, "method")
            return found
        key = canonical([cell.method, cell.hyperparameters, cell.method_hash])
        if key not in self._methods:
            files = {cell.method: plugin_method(cell.plugin, cell.method)} if cell.plugin else None
            method = create_method(cell.method, cell.hyperparameters, plugins=files)
            if source_hash(type(method)) != cell.method_hash:
                raise PluginError(
                    f"the code of method {cell.method!r} differs from that with which the cell was planned; install "
                    "the same version, or plan the run again"
                )
            self._methods[key] = method
        return self._methods[key]

    def _load_files(self, cell: Cell) -> None:
        """Make the datasets and models of plug-in files known, in whichever process.

        Raises:
            PluginError: If a file is gone, or is another one by now.
        """
        for file in cell.files:
            if file not in self._files:
                load_plugin(file)
                self._files.add(file)

    def dataset(self, cell: Cell) -> Dataset:
        """Return the dataset of a cell under its prompt templates and the class names that were given."""
        self._load_files(cell)
        key = (
            cell.in_process.get("dataset", cell.dataset),
            cell.prompts,
            canonical(to_plain(cell.model_options)),
        )
        if key not in self._datasets:
            live = "dataset" in cell.in_process
            dataset: Dataset = self._get(cell, "dataset") if live else find_dataset(cell.dataset)[0]
            self._datasets[key] = _named(dataset.prompted(cell.prompts) if cell.prompts else dataset, cell)
        return self._datasets[key]

    def model(self, cell: Cell) -> SourceModel:
        """Return the source model bound to a cell's classes, loading it if it was not used lately."""
        dataset = self.dataset(cell)
        told = canonical(to_plain(cell.model_options))
        bound = (dataset.class_names, dataset.class_indices, dataset.class_folders, dataset.templates, told)
        name = cell.in_process.get("model", cell.model)
        seed = 0 if cell.pretrained else cell.seed
        key = (name, *bound, cell.pretrained, seed, cell.precision, cell.device, cell.reward)
        if key not in self._models:
            source = self._load(cell, dataset, seed)
            if cell.reward:
                source.reward = self._reward(cell, dataset, seed + 1)
            self._models[key] = source, Watch(source)
            while len(self._models) > KEPT_MODELS:
                self._models.popitem(last=False)
        self._models.move_to_end(key)
        return self._models[key][0]

    def watch(self, source: SourceModel) -> Watch:
        """Return what notices writes to a source model that `model` gave last."""
        return next(watch for known, watch in reversed(self._models.values()) if known is source)

    def forget(self, source: SourceModel) -> None:
        """Let go of a source model that was written to, so that it is loaded again."""
        self._models = OrderedDict((key, one) for key, one in self._models.items() if one[0] is not source)

    def _load(self, cell: Cell, dataset: Dataset, seed: int) -> SourceModel:
        if "model" in cell.in_process:
            own: OwnModel = self._get(cell, "model")
            request = ModelRequest(
                cell.model,
                "",
                dataset.class_names,
                dataset.class_indices,
                dtype=dtype_of(cell.precision),
                device=cell.device,
                class_folders=dataset.class_folders,
                options=cell.model_options,
            )
            return ready(own.bind(request), request, cell.precision)
        return load_model(
            cell.model,
            dataset.class_names,
            class_indices=dataset.class_indices,
            class_folders=dataset.class_folders,
            options=cell.model_options,
            templates=dataset.templates,
            pretrained=cell.pretrained,
            seed=seed,
            precision=cell.precision,
            device=cell.device,
        )

    def _reward(self, cell: Cell, dataset: Dataset, seed: int) -> SourceModel:
        """Return the reward model of a cell, bound to the same classes.

        Raises:
            IncompatibleError: If it has no text side.
        """
        found = load_model(
            cell.reward,
            dataset.class_names,
            class_indices=dataset.class_indices,
            pretrained=cell.pretrained,
            seed=seed,
            precision=cell.precision,
            device=cell.device,
        )
        if found.text is None:
            raise IncompatibleError(
                f"a reward model must be a CLIP-like model, and {cell.reward!r} has no text side; choose another, e.g. "
                "pocket-clip",
                options=("reward",),
            )
        return found

    def stream(self, cell: Cell, source: SourceModel) -> Stream:
        """Return the stream of a cell, its images prepared for a source model."""
        images = self.open(cell)
        parts = [
            Part(shift, one, choose(one, cell.subset, cell.seed))
            for shift, one in zip(cell.each_shift(), images, strict=True)
        ]
        return Stream(parts, cell.batch_size, source.preprocess)

    def open(self, cell: Cell, shifts: Sequence[Shift] | None = None) -> list[ImageSource]:
        """Open the images of a cell's shifts, or of some of them, and let go of all others."""
        options: dict[str, Any] = {"bad_image": "stop", **cell.data_options}
        if self.workers is not None:
            options["workers"] = self.workers
        facts = canonical([cell.in_process.get("dataset"), cell.data_seed, cell.data_options])
        keys = [(shift, facts) for shift in (cell.each_shift() if shifts is None else shifts)]
        opened = {key: images for key, images in self._images.items() if key in keys}
        for key in keys:
            if key not in opened:
                request, dataset = OpenRequest(key[0], cell.data_seed, options), self.dataset(cell)
                opened[key] = open_checked(dataset, request)
        self._images = opened
        return [opened[key] for key in keys]

    def count(self, cell: Cell) -> int | None:
        """Return the images of a cell's stream, None where its data are not here."""
        try:
            return sum(len(choose(images, cell.subset, cell.seed)) for images in self.open(cell))
        except TTABenchError:
            return None

    def split(self, cell: Cell) -> ImageSource | None:
        """Return the source images of the cell's dataset where its method asks for them."""
        method = self.method(cell)
        if not source_data(method):
            return None
        name = cell.in_process.get("dataset", cell.dataset)
        if name not in self._splits:
            self._splits[name] = open_split(self.dataset(cell), cell.method, method)
        return self._splits[name]

    def decoded(self, images: ImageSource, preprocess: Preprocess) -> DecodedOnce:
        """Return the inputs of source images for a model, which all cells share, whatever their methods and shifts."""
        key = id(images), preprocess
        if key not in self._decoded:
            self._decoded[key] = DecodedOnce(images, preprocess)
        return self._decoded[key]

    def _get(self, cell: Cell, kind: Kind) -> Any:
        """Return an object of this process.

        Raises:
            BadInputError: If the process does not have it.
        """
        found = self._live.get(kind, cell.in_process[kind])
        if found is None:
            name = getattr(cell, kind)
            raise BadInputError(
                f"{cell.label} is an in-process cell: its {kind} {name!r} is an object of the process that made it; "
                "run it there, or give the part by a name that can be loaded anywhere"
            )
        return found


def _named(dataset: Dataset, cell: Cell) -> Dataset:
    """Return a dataset whose classes bear the names that the user gives, where they are matched with outputs."""
    options = cell.model_options
    names = display_names(dataset.class_folders, options.class_names, options.class_map)
    return dataset if names is None else replace(dataset, class_names=names)
