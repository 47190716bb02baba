# SPDX-License-Identifier: Apache-2.0
"""The Python interface: run methods over data, from names or from objects of the running process.

>>> import tta_bench as tb
>>> results = tb.evaluate(["source", "norm"], ["pocket-c:fog"], limit=20, output=runs, memory=False)
>>> results
<Results: 2 cells in ...>
>>> results.summary()[["method", "dataset", "images"]]
   method   dataset  images
0  source  pocket-c      20
1    norm  pocket-c      20
>>> sorted(results.frame(["prediction", "label"]).columns)
['correct', 'dataset', 'label', 'method', 'model', 'prediction', 'variant']
>>> len(tb.load(runs))
2
"""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Sequence
from os import PathLike, fspath
from pathlib import Path
from typing import Any, NamedTuple

from tta_bench.config import effective_config
from tta_bench.data.dataset import Dataset
from tta_bench.data.images.own import own_dataset
from tta_bench.engine.executors.task import Setup
from tta_bench.engine.live import Live
from tta_bench.engine.objects import Objects
from tta_bench.engine.planning import plan
from tta_bench.engine.ports import Reporter
from tta_bench.engine.session import Ended, Session
from tta_bench.errors import BadInputError, UnknownNameError
from tta_bench.method import Method
from tta_bench.models.own import OwnModel
from tta_bench.models.own import own_model as model
from tta_bench.records.driver import run_apart, runs_apart
from tta_bench.records.sink import Sink
from tta_bench.records.store import Store
from tta_bench.reports.crew import Crew
from tta_bench.reports.leaderboard import leaderboard, write_csv
from tta_bench.reports.progress import ConsoleReporter
from tta_bench.reports.results import Results, load
from tta_bench.reports.text import report_console
from tta_bench.spec import Cell, Controls, Request, make_request
from tta_bench.spec.options import options_of, read_values
from tta_bench.studies.islands.study import IslandsPlan, IslandsResult, study_islands
from tta_bench.suites import within

__all__ = [
    "IslandsResult",
    "Results",
    "dataset",
    "evaluate",
    "folder",
    "islands",
    "load",
    "model",
    "run_cells",
]


class Silent:
    """Show no progress."""

    def cell_started(self, label: str, done: int, total: int) -> None:
        """Do nothing."""

    def preparing(self, method: str, done: int, total: int | None) -> None:
        """Do nothing."""

    def advanced(self, images: int) -> None:
        """Do nothing."""

    def cell_ended(self, label: str, status: str, detail: str = "") -> None:
        """Do nothing."""


def evaluate(methods: Any = (), datasets: Any = (), *, suite: str = "", **options: Any) -> Results:
    """Run methods over datasets and return their results; complete cells of the run folder are not run again.

    Args:
        methods: Names as on the command line, or instances of methods; one or several.
        datasets: Names, `folder` or `dataset`, or iterables of (image, label) with an attribute ``classes``; one or
            several.
        suite: Named set of options; what is given here wins.
        options: Every option of ``tta-bench run``, by the name that it has in a YAML file: ``models`` (names or
            `model`), ``corruptions``, ``severities``, ``limit``, ``batch_size``, ``seeds``, ``settings``, ``device``
            and the others of `tta_bench.spec.Request`, and ``output``, ``resume``, ``force``, ``remeasure`` and
            ``memory`` of `tta_bench.spec.Controls`.

    Returns:
        The cells of this call. A cell that failed is one of them, see `Results.failed`.

    Raises:
        TTABenchError: For the first name or value that cannot be accepted, before anything is computed.
    """
    controls = Controls(**read_values(Controls, _take(options, options_of(Controls))))
    live, values = Live(), _take(options, options_of(Request))
    if options:
        make_request(options)  # names the option that does not exist
    values |= {"methods": _methods(methods, live), "datasets": _datasets(datasets, live)}
    values["models"] = [_model(one, live) for one in _several(values.get("models", ()))]
    values = read_values(Request, {name: value for name, value in values.items() if value not in ((), [])})
    values, use = within(suite, values) if suite else (values, None)
    request = make_request(values, use)
    objects = Objects(live, request.workers)
    cells = plan(request, live)
    config = "" if live.entries else effective_config(request, controls)
    console = report_console()
    if not (console.is_terminal or console.is_jupyter):
        return run_cells(cells, controls, objects=objects, config=config).results
    if runs_apart(controls):
        with Crew(console) as crew:
            return run_cells(cells, controls, objects=objects, crew=crew, config=config).results
    with ConsoleReporter(console, len(cells)) as reporter:
        return run_cells(cells, controls, objects=objects, reporter=reporter, config=config).results


evaluate.__signature__ = inspect.Signature(  # type: ignore[attr-defined]
    [
        *list(inspect.signature(evaluate).parameters.values())[:3],
        *(
            inspect.Parameter(one.name, inspect.Parameter.KEYWORD_ONLY, default=one.default)
            for cls in (Request, Controls)
            for one in options_of(cls).values()
            if one.name not in ("methods", "datasets")
        ),
    ]
)


class Ran(NamedTuple):
    """A finished run: how each cell ended, and the results."""

    ended: tuple[Ended, ...]
    results: Results


def run_cells(
    cells: Sequence[Cell],
    controls: Controls | None = None,
    *,
    objects: Objects | None = None,
    reporter: Reporter | None = None,
    crew: Crew | None = None,
    config: str = "",
) -> Ran:
    """Run planned cells into a run folder, and write its ``leaderboard.csv``.

    Args:
        cells: The cells; they may have been planned by another process.
        controls: Where and how.
        objects: The objects that the names of cells stand for; those of this process are known to it.
        reporter: Shown the progress of a run in this process.
        crew: Shown the progress of one in several processes.
        config: The options that the cells come from, as YAML, to be kept beside the plan.

    Raises:
        TTABenchError: Before anything is computed, if a cell cannot run here.
    """
    controls = controls or Controls()
    folder = controls.output.rstrip("/") or controls.output
    try:
        ended = tuple(_ended(cells, controls, objects, reporter, crew, config))
    except KeyboardInterrupt:
        write_csv(leaderboard([folder], allow_mixed=True), f"{folder}/leaderboard.csv")
        raise
    write_csv(leaderboard([folder], allow_mixed=True), f"{folder}/leaderboard.csv")
    computed = tuple(dict.fromkeys(one.cell for one in ended if one.cell))
    return Ran(ended, Results((controls.output,), computed))


def _ended(
    cells: Sequence[Cell],
    controls: Controls,
    objects: Objects | None,
    reporter: Reporter | None,
    crew: Crew | None,
    config: str,
) -> list[Ended]:
    """Run the cells here or in other processes, and return how each ended."""
    if runs_apart(controls):
        setup = Setup(controls, objects.workers if objects else None, config)
        return run_apart(cells, setup, crew or Crew(None))
    sink = Sink(Store(controls.output).open(create=True), config)
    session = Session(
        sink,
        reporter or Silent(),
        objects or Objects(),
        resume=controls.resume,
        force=controls.force,
        retime=sink.retime if controls.remeasure else None,
        probe_memory=controls.memory,
        threads=controls.threads,
    )
    return session.run(cells)


def folder(
    path: str | PathLike[str], corruption: str | Sequence[str] = "", severity: int | None = None
) -> list[str]:
    """Return the names of the shifts of a folder of images with one folder per class.

    Args:
        path: The folder.
        corruption: Corruptions to apply while loading, or ``all``; empty: the images as they are.
        severity: 1 to 5; None: as the option ``severities`` says.
    """
    name = f"folder:{fspath(path)}"
    kinds = [corruption] if isinstance(corruption, str) else list(corruption)
    level = "" if severity is None else f":{severity}"
    return [f"{name}:{kind}{level}" if kind else name for kind in kinds]


class OwnData(NamedTuple):
    """A dataset of this process and the hash of its content; `dataset` makes it."""

    facts: Dataset
    content: str


def dataset(data: Iterable[Any], class_names: Sequence[str] = (), *, name: str = "") -> OwnData:
    """Return images of this process as a dataset; each is read once to hash it.

    Args:
        data: Pairs (image, label): a ``torch.utils.data.Dataset``, a list, or any iterable, which is read whole. An
            image is a PIL image, a tensor (3, H, W) or an array (H, W, 3), uint8 or floating in [0, 1].
        class_names: In label order; by default the attribute ``classes`` of the data.
        name: In tables; by default that of its class.

    Raises:
        BadInputError: If it gives no such pairs, or the class names are not known.
    """
    return OwnData(*own_dataset(data, class_names, name))


def _take(options: dict[str, Any], known: Iterable[str]) -> dict[str, Any]:
    """Return and remove the options that are known."""
    return {name: options.pop(name) for name in list(options) if name in known}


def _several(value: Any) -> list[Any]:
    """Return what was given as a list, where one alone stands for itself."""
    return list(value) if isinstance(value, list | tuple) and not isinstance(value, OwnData) else [value]


def _methods(given: Any, live: Live) -> list[str]:
    names = []
    for one in _several(given):
        if not isinstance(one, str | Method):
            what = one.__name__ + ", the class itself" if isinstance(one, type) else type(one).__name__
            raise BadInputError(f"methods must be names or instances of tta_bench.method.Method, got {what}")
        names.append(one if isinstance(one, str) else live.add_method(one))
    return names


def _datasets(given: Any, live: Live) -> list[str]:
    names: list[str] = []
    # A list of pairs is data; a list of anything else holds datasets.
    whole = (
        isinstance(given, list | tuple) and bool(given) and isinstance(given[0], tuple) and len(given[0]) == 2
    )
    for one in [given] if whole and not isinstance(given[0], OwnData) else _several(given):
        if isinstance(one, str):
            names.append(one)
        elif isinstance(one, list) and all(isinstance(name, str) for name in one):
            names.extend(one)  # the shifts of a folder
        else:
            own = one if isinstance(one, OwnData) else dataset(one)
            names.append(live.add_dataset(own.facts, own.content))
    return names


def _model(given: Any, live: Live) -> str:
    if isinstance(given, OwnModel):
        return live.add_model(given)
    if not isinstance(given, str):
        raise BadInputError(
            f"models must be names or tta_bench.model(net, ...), got {type(given).__name__}; wrap a network with what "
            "it expects of an image, e.g. tta_bench.model(net, mean=..., std=..., size=224)"
        )
    return given


def islands(
    images: str | PathLike[str] | Iterable[str | PathLike[str]] = (),
    *,
    models: str | Sequence[str] = "pocket-clip",
    **options: Any,
) -> IslandsResult:
    """Measure what the layers of models agree on; the result has rows, curves, sentences and ``save(folder)``.

    Args:
        images: Paths of image files.
        models: Names of models.
        options: Further fields of `tta_bench.studies.islands.study.IslandsPlan`, e.g. ``dataset``, ``limit``,
            ``layers``, ``method``.

    Raises:
        BadInputError: For an image, a layer or an option that cannot be had.
    """
    paths = [images] if isinstance(images, str | PathLike) else list(images)
    known = set(IslandsPlan.__dataclass_fields__)
    if unknown := sorted(options.keys() - known):
        raise UnknownNameError("option of islands", unknown[0], known)
    names = (models,) if isinstance(models, str) else tuple(models)
    return study_islands(IslandsPlan(images=tuple(map(Path, paths)), models=names, **options))
