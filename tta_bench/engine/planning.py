# SPDX-License-Identifier: Apache-2.0
"""From what was asked to cells: every name resolved and every value checked before anything runs."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from tta_bench import registry
from tta_bench.data.dataset import Dataset, Shift, find_dataset
from tta_bench.errors import BadInputError, IncompatibleError, UnknownNameError
from tta_bench.hyperparameters import (
    create_method,
    declared_prompts,
    method_class,
    unknown_hyperparameter,
    variant,
)
from tta_bench.method import Method
from tta_bench.models.loading import family_of
from tta_bench.prompts import DATASET
from tta_bench.spec import RunSpec, settings_for

CLIP = "open_clip/ViT-B-16-quickgelu:openai"
"""The CLIP model of the literature's zero-shot tables; it takes any class names."""


@dataclass(frozen=True)
class CellPlan:
    """One cell, by names and values.

    Attributes:
        name: Name of the method.
        method: The method with its hyper-parameters.
        preset: Name of its preset; empty: none.
        model: Name of the source model.
        dataset: The dataset, with the templates of `prompts`.
        shifts: One shift, or the whole sequence where the method is never reset.
        subset: Which images of each shift.
        batch_size: Images per step.
        reset: When the method forgets.
        seed: Of order and draws.
        prompts: Name of the prompt templates; ``"dataset"`` for the dataset's own.
    """

    name: str
    method: Method
    preset: str
    model: str
    dataset: Dataset
    shifts: tuple[Shift, ...]
    subset: str
    batch_size: int
    reset: str
    seed: int
    prompts: str = DATASET

    @property
    def label(self) -> str:
        """What progress lines call the cell."""
        changed = variant(self.method)
        where = (
            str(self.shifts[0])
            if len(self.shifts) == 1
            else f"{self.dataset.name} ({len(self.shifts)} shifts)"
        )
        return f"{self.name}{f'[{changed}]' if changed else ''} · {self.model} · {where}"


def plan(spec: RunSpec, plugins: Mapping[str, type[Method]] | None = None) -> list[CellPlan]:
    """Return the cells of a run, those of one shift side by side so that its images are made once.

    Raises:
        BadInputError: For the first name or value that cannot be accepted.
    """
    methods = [(name, _method(spec, name, plugins)) for name in dict.fromkeys(spec.methods)]
    for owner in spec.presets:
        _check_owner("presets", owner, dict(methods))
    for setting in spec.settings:
        _check_setting(setting, dict(methods))
    for model in spec.models:
        if family_of(model)[0] not in registry.registered("models"):
            raise UnknownNameError(
                "model", model, registry.registered("models"), "`tta-bench list models` shows all"
            )
    cells = [
        cell
        for dataset, shifts in _datasets(spec)
        for seed in spec.seeds
        for cell in _cells(spec, methods, dataset, shifts, seed)
    ]
    return list({_key(cell): cell for cell in cells}.values())


def _method(spec: RunSpec, name: str, plugins: Mapping[str, type[Method]] | None) -> Method:
    """Return one method with the settings that are its own, or that it shares with others of the run."""
    known = _hyperparameters(method_class(name, plugins))
    values = {
        key: value
        for key, value in settings_for(name, spec.settings).items()
        if key in known or any(setting.startswith(f"{name}.{key}=") for setting in spec.settings)
    }
    method = create_method(name, values, preset=_preset(spec, name), plugins=plugins)
    if spec.precision not in method.card.precision:
        good = ", ".join(sorted(method.card.precision))
        raise IncompatibleError(
            f"{name} is good for --precision {good}, got {spec.precision!r}; choose one of those"
        )
    return method


def _hyperparameters(cls: type[Method]) -> set[str]:
    return {field.name for field in dataclasses.fields(cls)}  # type: ignore[arg-type]


def _check_setting(setting: str, methods: Mapping[str, Method]) -> None:
    """Refuse a ``--set`` that no method of the run would read."""
    owner, dot, name = setting.partition("=")[0].rpartition(".")
    if dot:
        _check_owner("--set", owner, methods)
    known = {key for method in methods.values() for key in _hyperparameters(type(method))}
    if not dot and name not in known:
        raise unknown_hyperparameter(", ".join(methods), name, known)


def _check_owner(option: str, owner: str, methods: Mapping[str, Method]) -> None:
    if owner not in methods:
        raise UnknownNameError(
            f"method in {option}", owner, methods, "it must be one of the methods of this run"
        )


def _preset(spec: RunSpec, name: str) -> str:
    return spec.presets.get(name, spec.preset)


def _datasets(spec: RunSpec) -> Iterator[tuple[Dataset, tuple[Shift, ...]]]:
    """Yield every dataset once, with all shifts that were asked of it."""
    asked: dict[str, tuple[Dataset, list[Shift]]] = {}
    for token in spec.datasets:
        dataset, corruptions, severities = find_dataset(token)
        named = corruptions or (spec.corruptions if dataset.corruptions else ())
        found = dataset.shifts(named, severities or spec.severities)
        asked.setdefault(dataset.name, (dataset, []))[1].extend(found)
    if spec.corruptions and not any(dataset.corruptions for dataset, _ in asked.values()):
        names = ", ".join(asked)
        raise BadInputError(
            f"--corruption needs a corrupted dataset such as pocket-c, got {names}; leave it out"
        )
    for dataset, shifts in asked.values():
        yield dataset, tuple(dict.fromkeys(shifts))


def _cells(
    spec: RunSpec, methods: list[tuple[str, Method]], dataset: Dataset, shifts: tuple[Shift, ...], seed: int
) -> Iterator[CellPlan]:
    for group in [(shift,) for shift in shifts] + [shifts]:
        for name, method in methods:
            reset = spec.reset or method.card.reset
            if (reset == "never") != (group is shifts):
                continue
            batch_size = spec.batch_size or _default_batch(method, dataset, reset)
            method.check_protocol(reset, batch_size)
            preset = _preset(spec, name)
            prompts = spec.prompts or declared_prompts(type(method), preset)
            for model in spec.models or (_default_model(name, method, dataset),):
                yield CellPlan(
                    name=name,
                    method=method,
                    preset=preset,
                    model=model,
                    dataset=dataset.prompted(prompts),
                    shifts=group,
                    subset=spec.subset or dataset.default_subset,
                    batch_size=batch_size,
                    reset=reset,
                    seed=seed,
                    prompts=prompts,
                )


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
            f"{name} on {dataset.name} needs --model, since no usual classifier is known for its classes; name one "
            f"that was trained on them, e.g. timm/NAME, or a CLIP-like one, e.g. {CLIP}"
        )
    return usual


def _default_batch(method: Method, dataset: Dataset, reset: str) -> int:
    return method.card.chunk if reset == "image" else dataset.default_batch


def _key(cell: CellPlan) -> tuple[object, ...]:
    return (cell.name, cell.model, cell.shifts, cell.seed, cell.reset, cell.batch_size, cell.subset)


def describe_defaults(cells: list[CellPlan], spec: RunSpec) -> str:
    """Return the sentence that a run begins with: what was chosen where nothing was said."""
    shifts = list(dict.fromkeys(shift for cell in cells for shift in cell.shifts))
    severities = sorted({shift.severity for shift in shifts if shift.severity})
    corruptions = list(dict.fromkeys(shift.corruption for shift in shifts if shift.corruption))
    parts = [*_suite(spec), f"{len(cells)} cells"]
    if corruptions:
        listed = f"{len(corruptions)} corruptions" if len(corruptions) > 1 else corruptions[0]
        parts.append(f"{listed} at severity {', '.join(map(str, severities))}")
    parts.append(f"{', '.join(sorted({cell.subset for cell in cells}))} images per shift (--limit)")
    per_method = {(cell.name, cell.model, cell.reset, cell.batch_size): cell for cell in cells}
    parts += [
        f"{name} on {model}: reset per {reset}, {size} images at a time"
        if reset != "never"
        else f"{name} on {model}: never reset, {size} images at a time"
        for name, model, reset, size in per_method
    ]
    chosen = list(dict.fromkeys(cell.prompts for cell in cells))
    parts += [f"prompts {', '.join(chosen)}"] if chosen != [DATASET] else []
    parts.append(f"seed {', '.join(map(str, spec.seeds))}")
    return "; ".join(parts)


def _suite(spec: RunSpec) -> Iterator[str]:
    """Yield the suite that a run follows, and what it changes of it."""
    if spec.suite:
        changed = ", ".join(spec.suite["changed"])
        yield f"suite {spec.suite['name']}, version {spec.suite['version']}" + (
            f", with other {changed}" if changed else ""
        )
