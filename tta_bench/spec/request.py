# SPDX-License-Identifier: Apache-2.0
"""A run as a user asks for it: names, ranges and protocol choices. Imports neither torch nor pydantic."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from tta_bench.errors import BadInputError, UnknownNameError
from tta_bench.spec.class_files import read_class_map, read_class_names
from tta_bench.spec.model_options import INTERPOLATIONS, ModelOptions, read_numbers, read_size
from tta_bench.spec.options import option, options_of, read_values
from tta_bench.spec.ranges import WORST, limit_to_subset, read_seeds, read_severities, subset_size
from tta_bench.spec.settings import parse_setting, read_presets, read_settings, write_presets

RESETS = ("image", "batch", "shift", "never")
SCENARIOS = ("iid", "sequence")
"""``iid``: every shift is a stream of its own, in random order; ``sequence``: one stream of all shifts in turn."""
PRECISIONS = ("float32", "float64", "bfloat16")
DEVICES = ("auto", "cpu", "cuda", "mps", "xpu")
NUMBERED = ("cuda", "xpu")
"""Devices of which there can be several: cuda:1 is the second."""
BAD_IMAGE = ("stop", "skip")
VIEWS = ("device", "reference")
EXECUTORS = ("local", "ray", "slurm")
CHOSEN = ("published", "held-out", "tuned-on-test")
ELASTIC = ("original", "imagecorruptions")
DATA_OPTIONS = ("bad_image", "allow_incomplete", "emulate_distributed", "elastic", "frost_dir")
"""Options that decide which images are read and how they look; their effect is in the hash of the data."""


@dataclass(frozen=True)
class SuiteUse:
    """The suite that a run follows.

    Attributes:
        name: Of the suite.
        version: Of its definition.
        changed: The options that were given beside it.
    """

    name: str
    version: int
    changed: tuple[str, ...] = ()


@dataclass(frozen=True)
class Request:
    """Everything that a user can ask of a run; each field is one option.

    Only ``suite`` is none: it names the definition that the options come from.
    """

    methods: tuple[str, ...] = option(
        (), "Method, also tent,eata, come-*, @online, @clip or @forward-only; repeat for several.", flag="--method",
        needed="must name at least one method; `tta-bench list methods` shows all",
    )  # fmt: skip
    datasets: tuple[str, ...] = option(
        (), "Dataset, also NAME:CORRUPTION[:SEVERITY], with wildcards; repeat for several.", flag="--dataset",
        needed="must name at least one dataset; `tta-bench list datasets` shows all",
    )  # fmt: skip
    models: tuple[str, ...] = option(
        (), "Source model; default: the method's own; repeat for several.", flag="--model"
    )
    corruptions: tuple[str, ...] = option(
        (), "Corruption of a corrupted dataset, a wildcard, or all; repeat for several.", flag="--corruption"
    )
    severities: tuple[int, ...] = option(
        (5,), "1 to 5, also 1-5 or 1,3; default 5.", flag="--severity", least=1, below=WORST + 1,
        read=read_severities, needed="must name at least one; leave it out for 5",
    )  # fmt: skip
    limit: int | None = option(None, "Images per shift (the first N); the same as subset first-N.")
    subset: str = option("", "full, first-N, seeded-N or robustbench-5k; default: the dataset's own.")
    batch_size: int | None = option(None, "Images per step.", least=1)
    seeds: tuple[int, ...] = option(
        (0,), "Seed of order, draws and random weights, also 0-4 or 0,2; default 0.", flag="--seed", least=0,
        below=2**63, read=read_seeds, needed="must name at least one; leave it out for 0",
    )  # fmt: skip
    data_seed: int = option(0, "Seed of the corruptions' random numbers.", least=0, below=2**63)
    scenario: str | None = option(
        None, "iid (each shift alone) or sequence (all in one stream); default: sequence for reset never, else iid.",
        choices=SCENARIOS,
    )  # fmt: skip
    reset: str | None = option(
        None, "image, batch, shift or never; default: the method's own.", choices=RESETS
    )
    settings: tuple[str, ...] = option(
        (), "Hyper-parameter, lr=1e-4 or tent.lr=1e-4; repeat for several.", flag="--set", read=read_settings
    )
    preset: str = option("", "Named hyper-parameters of the literature, for all methods.", flag=None)
    presets: Mapping[str, str] = option(
        {}, "Named hyper-parameters of the literature, NAME, or METHOD=NAME for one method; repeat for several.",
        flag="--preset", read=read_presets, write=write_presets,
    )  # fmt: skip
    chosen: str = option(
        "published", "How hyper-parameters were chosen: published, held-out, tuned-on-test.", choices=CHOSEN
    )
    device: str = option(
        "auto", "auto (cuda where there is one, else cpu), cpu, cuda, cuda:N, mps, xpu or xpu:N.",
        choices=DEVICES, numbered=NUMBERED,
    )  # fmt: skip
    precision: str = option("float32", "float32, float64 or bfloat16 (autocast).", choices=PRECISIONS)
    pretrained: bool = option(
        True, "Without: random weights, for timing; tables say so.", flag="--pretrained/--no-pretrained"
    )
    num_classes: int | None = option(
        None, "Outputs of a model read from a file; default: as many as the file has.", least=2
    )
    class_names: tuple[str, ...] = option(
        (), "File with the names of the model's outputs in their order, one per line or JSON.",
        read=read_class_names,
    )  # fmt: skip
    class_map: Mapping[str, str] = option(
        {}, "File that maps class folders to the model's outputs: lines folder,output or JSON.",
        flag="--class-map", read=read_class_map,
    )  # fmt: skip
    mean: tuple[float, ...] = option(
        (), "The model's mean per channel, as 0.485,0.456,0.406; default: the library's.", read=read_numbers
    )
    std: tuple[float, ...] = option(
        (), "The model's deviation per channel; default: the library's.", read=read_numbers
    )
    input_size: tuple[int, ...] = option(
        (), "Side of the model's input in pixels, or 224x160; default: the library's.", read=read_size
    )
    crop: float | None = option(
        None, "Share of the resized image that the centre crop keeps, as 0.875 for 224 of 256."
    )
    interpolation: str | None = option(
        None, "bilinear, bicubic or nearest: filter of the resize.", choices=INTERPOLATIONS
    )
    prompts: str = option(
        "",
        'Prompt templates for CLIP-like models: a name (see list prompts), a text file, or "a photo of a {}.".',
    )
    reward: str = option("", "Reward model of methods that need one; default: pocket-clip for pocket models.")
    views: str = option(
        "device",
        "device or reference: the fastest way to make views, or Pillow's as published.",
        choices=VIEWS,
    )
    bad_image: str = option(
        "stop", "stop or skip: what an unreadable image does.", flag="--on-bad-image", choices=BAD_IMAGE
    )
    allow_incomplete: bool = option(
        False, "Run datasets of which images are missing; tables say so.", flag="--allow-incomplete"
    )
    workers: int | None = option(None, "Processes that decode images; 0: the main process.", least=0)
    emulate_distributed: bool = option(
        False, "Save generated corruptions as JPEG 85, as ImageNet-C's files were.",
        flag="--emulate-distributed",
    )  # fmt: skip
    elastic: str | None = option(
        None, "original or imagecorruptions: which elastic_transform.", choices=ELASTIC
    )
    frost_dir: str | None = option(None, "Folder of frost photographs for frost; default: generated.")
    plugins: tuple[str, ...] = option(
        (), "Python file that defines methods, datasets or models; repeat for several.", flag="--plugin"
    )
    suite: SuiteUse | None = field(default=None)

    def __post_init__(self) -> None:
        """Refuse values that no run could accept."""
        for name, one in options_of(Request).items():
            if name != "limit":
                one.check(getattr(self, name))
        if self.limit is not None and self.subset:
            raise BadInputError(
                "limit and subset say the same thing; give one of them", options=("limit", "subset")
            )
        subset_size(self.chosen_subset or "full")
        _ = self.model_options
        for text in self.settings:
            parse_setting(text)

    @property
    def chosen_subset(self) -> str:
        """Return the subset that was asked for, also by a limit; empty: the dataset's default."""
        return self.subset if self.limit is None else limit_to_subset(self.limit)

    def preset_of(self, method: str) -> str:
        """Return the preset of a method: its own, or that of all; empty: none."""
        return self.presets.get(method, self.presets.get("", self.preset))

    @property
    def model_options(self) -> ModelOptions:
        """Return what was said of the models."""
        return ModelOptions(**{one.name: getattr(self, one.name) for one in fields(ModelOptions)})

    @property
    def data_options(self) -> dict[str, Any]:
        """Return the options of the data's readers that are not at their defaults."""
        known = options_of(Request)
        given = {name: getattr(self, name) for name in DATA_OPTIONS}
        return {name: value for name, value in given.items() if value != known[name].default}


@dataclass(frozen=True)
class Controls:
    """Settings of a run that change no prediction.

    Attributes:
        output: Where the records go.
        resume: Whether interrupted cells are resumed instead of started again.
        force: Whether complete cells are computed again.
        remeasure: Whether complete cells are timed again and keep their predictions.
        memory: Whether memory is probed on the CPU.
        executor: Where cells run: ``local``, ``ray`` or ``slurm``.
        jobs: How many processes run cells; 1 with ``local``: this process.
        threads: Threads that torch computes with in each of them; None: the machine's cores shared out.
        shards: Ranges of images that cells are cut into whose batches start afresh; None: as many as keep all busy.
        cell_timeout: Seconds of computing after which a cell, or a shard of one, is ended as failed; None: never.
        retries: How often a cell is tried again whose process died.
        worker_memory: MiB of memory that Ray reserves for a process; None: it reserves none.
        ray_address: Of the Ray cluster: ``auto``, HOST:PORT, or ``local`` for one that is started for this run.
        slurm: Parameters of submitit as NAME=VALUE.
    """

    output: str = option("runs", "Run folder: a path or a URL; default: runs.")
    resume: bool = option(False, "Resume cells that were interrupted.", flag="--resume")
    force: bool = option(False, "Compute cells again that are complete.", flag="--force")
    remeasure: bool = option(
        False,
        "Time complete cells again; their predictions stay and must come out equal.",
        flag="--remeasure",
    )
    memory: bool = option(
        True, "Probe peak memory on the CPU (two extra steps a cell).", flag="--memory/--no-memory"
    )
    executor: str = option(
        "local", "local, ray or slurm: where cells run; see docs/cluster.md.", choices=EXECUTORS
    )
    jobs: int = option(1, "Processes that run cells; GPUs are shared out among them.", least=1, below=2**16)
    threads: int | None = option(
        None, "Threads that torch computes with in each process; numbers may differ with it in the last bits.", least=1
    )  # fmt: skip
    shards: int | None = option(
        None, "Ranges of images that a cell of an episodic method is cut into; default: as many as keep all busy.",
        least=1,
    )  # fmt: skip
    cell_timeout: int | None = option(
        None, "Seconds of computing after which a cell is ended as failed.", least=1
    )
    retries: int = option(2, "How often a cell is tried again whose process died.", least=0)
    worker_memory: int | None = option(None, "MiB of memory that Ray reserves for each process.", least=1)
    ray_address: str = option("auto", "Ray cluster: auto, HOST:PORT, or local to start one for this run.")
    slurm: tuple[str, ...] = option(
        (), "Parameter of submitit, e.g. slurm_partition=gpu or timeout_min=240; repeat for several."
    )

    def __post_init__(self) -> None:
        """Refuse values that no run could accept."""
        for name, one in options_of(Controls).items():
            one.check(getattr(self, name))


def make_request(values: Mapping[str, Any], suite: SuiteUse | None = None) -> Request:
    """Return the request of options by name, each in any form that the option takes.

    Raises:
        BadInputError: For a value that it does not take, or an option that there is none of.
    """
    known = options_of(Request)
    for name in values:
        if name not in known:
            raise UnknownNameError("option", name, known)
    return Request(**read_values(Request, values), suite=suite)


def merged(levels: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """Return one set of options from several, of which each wins over those before it.

    ``limit`` and ``subset`` stand for each other, and so do ``preset`` and ``presets``: a later one replaces
    either.

    Raises:
        BadInputError: If one set holds both a limit and a subset.
    """
    values: dict[str, Any] = {}
    for level in levels:
        if {"limit", "subset"} <= level.keys():
            raise BadInputError(
                "limit and subset say the same thing; give one of them", options=("limit", "subset")
            )
        for pair in (("limit", "subset"), ("preset", "presets")):
            if any(key in level for key in pair):
                values = {key: value for key, value in values.items() if key not in pair}
        values |= level
    return values
