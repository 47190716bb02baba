# SPDX-License-Identifier: Apache-2.0
"""Turns a request into cells: every name resolved and every value checked before anything runs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from tta_bench import registry
from tta_bench.data.dataset import Dataset, Shift, find_dataset
from tta_bench.engine.devices import run_device
from tta_bench.engine.expanding import expanded
from tta_bench.engine.live import Kind, Live
from tta_bench.engine.rewards import check_wanted, reward_model
from tta_bench.errors import BadInputError, IncompatibleError, UnknownNameError
from tta_bench.hyperparameters import (
    as_dict,
    create_method,
    declared_prompts,
    file_hash,
    hyperparameter_names,
    method_class,
    plugin_methods,
    source_hash,
    unknown_hyperparameter,
    variant,
)
from tta_bench.method import Method
from tta_bench.models.loading import family_of, file_of, is_file
from tta_bench.plugins import files_behind
from tta_bench.prompts import DATASET
from tta_bench.spec import Cell, PluginFile, Request, digest, parse_setting, settings_for
from tta_bench.spec.code import module_texts
from tta_bench.spec.ranges import subset_size

CLIP = "open_clip/ViT-B-16-quickgelu:openai"
"""The CLIP model of the literature's zero-shot tables; it takes any class names."""


class Candidate(NamedTuple):
    """One method of a run.

    Attributes:
        token: What the request calls it by.
        name: Its name.
        method: The method with its hyper-parameters.
        preset: Name of its preset; empty: none.
        plugin: The file that defines it; None if it is registered.
    """

    token: str
    name: str
    method: Method
    preset: str = ""
    plugin: PluginFile | None = None


def plan(request: Request, live: Live | None = None) -> list[Cell]:
    """Return the cells of a run, those of one shift side by side so that its images are made once.

    Args:
        request: What was asked.
        live: Objects of this process that some of its names stand for.

    Raises:
        BadInputError: For the first name or value that cannot be accepted.
    """
    live = live or Live()
    files = plugin_methods(request.plugins)
    classes = {name: cls for name, (cls, _) in files.items()}
    request = expanded(request, live, classes, lambda name: _method(request, name, classes))
    methods = _candidates(request, live, files)
    device = run_device(request.device, request.precision)
    check_wanted(request.reward, {one.name: one.method for one in methods})
    for model in (*request.models, *([request.reward] if request.reward else [])):
        known = live.find("model", model) is not None or family_of(model)[0] in registry.registered("models")
        if not known and is_file(model):
            raise BadInputError(
                f"{model!r} is a file of weights, which does not tell its architecture; name both, as "
                f"timm/ARCH:{model}, torchvision/ARCH:{model} or open_clip/ARCH:{model}",
                options=("models",),
            )
        if not known:
            raise UnknownNameError(
                "model", model, registry.registered("models"), "`tta-bench list models` shows all"
            )
    cells = [
        cell
        for dataset, shifts in _datasets(request, live)
        for seed in request.seeds
        for cell in _cells(request, methods, dataset, shifts, seed, device, live)
    ]
    return list({(cell.label, str(cell.identity())): cell for cell in cells}.values())


def _candidates(
    request: Request, live: Live, files: Mapping[str, tuple[type[Method], PluginFile]]
) -> list[Candidate]:
    """Return the methods of a run; settings and presets are for those that are named."""
    methods = []
    for name in dict.fromkeys(request.methods):
        if (entry := live.find("method", name)) is not None:
            methods.append(Candidate(name, entry.name, entry.value))
            continue
        method = _method(request, name, {key: cls for key, (cls, _) in files.items()})
        plugin = files[name][1] if name in files else None
        methods.append(Candidate(name, name, method, request.preset_of(name), plugin))
    _check_owners(request, [one for one in methods if live.find("method", one.token) is None])
    for one in methods:
        if request.precision not in one.method.card.precision:
            good = ", ".join(sorted(one.method.card.precision))
            raise IncompatibleError(
                f"{one.name} is good for precision {good}, got {request.precision!r}; choose one of those",
                options=("precision",),
            )
    return methods


def _method(request: Request, name: str, plugins: Mapping[str, type[Method]]) -> Method:
    """Return one method with the settings that are its own, or that it shares with others of the run."""
    known = hyperparameter_names(method_class(name, plugins))
    owned = {one.name for one in map(parse_setting, request.settings) if one.method == name}
    values = {
        key: value
        for key, value in settings_for(name, request.settings).items()
        if key in known or key in owned
    }
    return create_method(name, values, preset=request.preset_of(name), plugins=plugins)


def _check_owners(request: Request, methods: Sequence[Candidate]) -> None:
    """Refuse a preset or a setting that no method of the run would read."""
    names = [one.name for one in methods]
    known = {key for one in methods for key in hyperparameter_names(type(one.method))}
    for owner in request.presets:
        if owner:
            _check_owner("presets", owner, names)
    for setting in map(parse_setting, request.settings):
        if setting.method:
            _check_owner("settings", setting.method, names)
        elif setting.name not in known:
            raise unknown_hyperparameter(", ".join(names), setting.name, known)


def _check_owner(option: str, owner: str, methods: Sequence[str]) -> None:
    if owner not in methods:
        hint = "it must be one of the methods of this run"
        raise UnknownNameError(f"method in {option}", owner, methods, hint, options=(option,))


def _datasets(request: Request, live: Live) -> Iterator[tuple[Dataset, tuple[Shift, ...]]]:
    """Yield every dataset once, with all shifts that were asked of it."""
    asked: dict[str, tuple[Dataset, list[Shift]]] = {}
    for token in request.datasets:
        entry = live.find("dataset", token)
        dataset, corruptions, severities = (entry.value, (), ()) if entry else find_dataset(token)
        named = corruptions or (request.corruptions if dataset.corruptions else ())
        asked.setdefault(dataset.name, (dataset, []))[1].extend(
            dataset.shifts(named, severities or request.severities)
        )
    if request.corruptions and not any(dataset.corruptions for dataset, _ in asked.values()):
        names = ", ".join(asked)
        raise BadInputError(
            f"corruptions must go with a corrupted dataset such as pocket-c, got {names}; leave them out",
            options=("corruptions",),
        )
    for dataset, found in asked.values():
        yield dataset, tuple(dict.fromkeys(found))


def _cells(
    request: Request,
    methods: Sequence[Candidate],
    dataset: Dataset,
    shifts: tuple[Shift, ...],
    seed: int,
    device: str,
    live: Live,
) -> Iterator[Cell]:
    streams = [("iid", (shift,)) for shift in shifts] + [("sequence", shifts)]
    for scenario, seen in streams:
        for one in methods:
            reset = request.reset or one.method.card.reset
            if scenario != (request.scenario or default_scenario(reset)):
                continue
            batch_size = request.batch_size or _default_batch(one.method, dataset, reset)
            one.method.check_protocol(reset, batch_size)
            prompts = request.prompts or declared_prompts(type(one.method), one.preset)
            dataset.prompted(prompts)
            for model in request.models or (_default_model(one.name, one.method, dataset),):
                reward = reward_model(request.reward, one.name, one.method, model)
                yield Cell(
                    **_of_method(one, reward),
                    model=model,
                    dataset=dataset.name,
                    shifts=tuple(map(str, seen)),
                    subset=request.chosen_subset or dataset.default_subset,
                    batch_size=batch_size,
                    reset=reset,
                    seed=seed,
                    data_seed=request.data_seed,
                    scenario=scenario,
                    precision=request.precision,
                    device=device,
                    pretrained=request.pretrained,
                    chosen=request.chosen,
                    prompts=prompts,
                    views=request.views,
                    weights_file=_weights_file(model, request, live),
                    reward=reward,
                    data_options=request.data_options,
                    model_options=request.model_options,
                    suite=request.suite,
                    plugin_code=_plugin_code(model, dataset.name, live),
                    files=_files(model, dataset.name),
                    in_process=live.hashes(method=one.token, model=model, dataset=dataset.name),
                )


def _weights_file(model: str, request: Request, live: Live) -> str:
    """Return the file that the weights of a model are read from, empty where there is none."""
    named = live.find("model", model) is None
    return file_of(model) if named and request.pretrained else ""


def _plugin_code(model: str, dataset: str, live: Live) -> dict[str, str]:
    """Return the hash of the code of a model and a dataset of outside packages; ours goes by the version."""
    groups: tuple[tuple[Kind, registry.Group, str], ...] = (
        ("model", "models", family_of(model)[0]),
        ("dataset", "datasets", dataset.partition(":")[0]),
    )
    found: dict[str, str] = {}
    for kind, group, name in groups:
        point = registry.registered(group).get(name)
        named = live.find(kind, model if kind == "model" else dataset) is None
        if named and point is not None and not registry.built_in(point):
            registry.load(group, name)
            found[kind] = digest(module_texts(point.module), 16)
    return found


def _files(model: str, dataset: str) -> tuple[PluginFile, ...]:
    """Return the plug-in files that the model and the dataset of a cell come from."""
    paths = files_behind(models=family_of(model)[0], datasets=dataset.partition(":")[0])
    return tuple(PluginFile(path, file_hash(Path(path))) for path in dict.fromkeys(paths))


def default_scenario(reset: str) -> str:
    """Return the scenario where none is named: a method that is never reset sees all shifts in one stream."""
    return "sequence" if reset == "never" else "iid"


def _of_method(one: Candidate, reward: str) -> dict[str, Any]:
    differing = [variant(one.method), f"reward={reward}" if reward else ""]
    return {
        "method": one.name,
        "hyperparameters": as_dict(one.method),
        "method_hash": source_hash(type(one.method)),
        "preset": one.preset,
        "variant": ",".join(part for part in differing if part),
        "plugin": one.plugin,
    }


def _default_model(name: str, method: Method, dataset: Dataset) -> str:
    """Return the source model where none is named: the card's own on PocketScenes, the literature's elsewhere.

    Raises:
        BadInputError: If there is no usual model for the dataset's classes.
    """
    if dataset.demonstration or not method.card.model.startswith("pocket-"):
        return method.card.model
    usual = CLIP if method.card.model == "pocket-clip" else dataset.classifier
    if not usual:
        raise BadInputError(
            f"{name} on {dataset.name} needs a model, since no usual classifier is known for its classes; name one "
            f"that was trained on them, e.g. timm/NAME, or a CLIP-like one, e.g. {CLIP}",
            options=("models",),
        )
    return usual


def _default_batch(method: Method, dataset: Dataset, reset: str) -> int:
    return method.card.chunk if reset == "image" else dataset.default_batch


def describe_defaults(cells: Sequence[Cell], request: Request) -> str:
    """Return the sentence that a run begins with: the values that were chosen by default."""
    shifts = list(dict.fromkeys(shift for cell in cells for shift in cell.each_shift()))
    severities = sorted({shift.severity for shift in shifts if shift.severity})
    corruptions = list(dict.fromkeys(shift.corruption for shift in shifts if shift.corruption))
    parts = [*_suite(request), "1 cell" if len(cells) == 1 else f"{len(cells):,} cells"]
    if corruptions:
        listed = f"{len(corruptions)} corruptions" if len(corruptions) > 1 else corruptions[0]
        graded = f" at severity {', '.join(map(str, severities))}" if severities else ""
        parts.append(f"{listed}{graded}")
    parts.append(_images({cell.subset for cell in cells}))
    per_method = {(cell.method, cell.model, cell.reset, _images_at_a_time(cell)): cell for cell in cells}
    parts += [
        f"{name} on {model}: {'never reset' if reset == 'never' else f'reset per {reset}'}, {size} at a time"
        for name, model, reset, size in per_method
    ]
    chosen = list(dict.fromkeys(cell.prompts for cell in cells))
    parts += [f"prompts {', '.join(chosen)}"] if chosen != [DATASET] else []
    parts.append(f"seed {', '.join(map(str, request.seeds))}")
    return "; ".join(parts)


def _images(subsets: set[str]) -> str:
    """Return which images of a shift are used; only a limit is said to be one."""
    if subsets == {"full"}:
        return "all images of each shift"
    return f"{', '.join(sorted(subsets))} images per shift (--limit)"


def _images_at_a_time(cell: Cell) -> str:
    """Return how many images a step sees, which are no more than there are where their number is known."""
    limit = subset_size(cell.subset)
    size = cell.batch_size if limit is None else min(cell.batch_size, limit * len(cell.shifts))
    return "1 image" if size == 1 else f"{size} images"


def _suite(request: Request) -> Iterator[str]:
    """Yield the suite that a run follows, and what it changes of it."""
    if request.suite:
        changed = ", ".join(request.suite.changed)
        yield f"suite {request.suite.name}, version {request.suite.version}" + (
            f", with other {changed}" if changed else ""
        )
