# SPDX-License-Identifier: Apache-2.0
"""``tta-bench run``: from names on the command line to a table and the files behind it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.console import Console

    from tta_bench.engine.planning import CellPlan
    from tta_bench.engine.session import Ended, Session
    from tta_bench.method import Method
    from tta_bench.spec import RunSpec

FAILED = 1
INTERRUPTED = 130
DATA_OPTIONS = ("workers", "emulate_distributed", "elastic", "frost_dir")
Names = list[str] | None


def run(
    method: Annotated[Names, typer.Option("--method", help="Method to run; repeat for several.")] = None,
    dataset: Annotated[
        Names, typer.Option("--dataset", help="Dataset, also NAME:CORRUPTION[:SEVERITY]; repeat for several.")
    ] = None,
    model: Annotated[
        Names, typer.Option("--model", help="Source model; default: the method's own; repeat for several.")
    ] = None,
    corruption: Annotated[
        Names,
        typer.Option("--corruption", help="Corruption of a corrupted dataset, or all; repeat for several."),
    ] = None,
    severity: Annotated[Names, typer.Option("--severity", help="1 to 5, also 1-5 or 1,3; default 5.")] = None,
    limit: Annotated[
        int | None,
        typer.Option("--limit", help="Images per shift (the first N); the same as --subset first-N."),
    ] = None,
    subset: Annotated[
        str | None,
        typer.Option(
            "--subset", help="full, first-N, seeded-N or robustbench-5k; default: the dataset's own."
        ),
    ] = None,
    batch_size: Annotated[int | None, typer.Option("--batch-size", help="Images per step.")] = None,
    seed: Annotated[
        list[int] | None, typer.Option("--seed", help="Order and draws; repeat for several.")
    ] = None,
    reset: Annotated[
        str | None, typer.Option("--reset", help="image, batch, shift or never; default: the method's own.")
    ] = None,
    settings: Annotated[
        Names, typer.Option("--set", help="Hyper-parameter, lr=1e-4 or tent.lr=1e-4; repeat for several.")
    ] = None,
    preset: Annotated[
        str | None, typer.Option("--preset", help="Named hyper-parameters of the literature.")
    ] = None,
    chosen: Annotated[
        str | None,
        typer.Option(
            "--chosen", help="How hyper-parameters were chosen: published, held-out, tuned-on-test."
        ),
    ] = None,
    device: Annotated[str | None, typer.Option("--device", help="auto, cpu or cuda.")] = None,
    precision: Annotated[
        str | None, typer.Option("--precision", help="float32, float64 or bfloat16 (autocast).")
    ] = None,
    pretrained: Annotated[
        bool | None,
        typer.Option(
            "--pretrained/--no-pretrained", help="Without: random weights, for timing; tables say so."
        ),
    ] = None,
    prompts: Annotated[
        str | None,
        typer.Option(
            "--prompts",
            help="Prompt templates by name or text file, for all CLIP-like models; see list prompts.",
        ),
    ] = None,
    bad_image: Annotated[
        str | None, typer.Option("--on-bad-image", help="stop or skip: what an unreadable image does.")
    ] = None,
    workers: Annotated[
        int | None, typer.Option("--workers", help="Processes that decode images; 0: the main process.")
    ] = None,
    emulate_distributed: Annotated[
        bool | None,
        typer.Option(
            "--emulate-distributed", help="Save generated corruptions as JPEG 85, as ImageNet-C's files were."
        ),
    ] = None,
    elastic: Annotated[
        str | None, typer.Option("--elastic", help="original or imagecorruptions: which elastic_transform.")
    ] = None,
    frost_dir: Annotated[
        Path | None,
        typer.Option("--frost-dir", help="Folder of frost photographs for frost; default: generated."),
    ] = None,
    plugin: Annotated[
        list[Path] | None,
        typer.Option("--plugin", help="Python file that defines a method; repeat for several."),
    ] = None,
    config: Annotated[
        Path | None, typer.Option("--config", help="YAML file with these options; the command line wins.")
    ] = None,
    suite: Annotated[
        str | None,
        typer.Option("--suite", help="Named set of these options; --config and the command line win."),
    ] = None,
    output: Annotated[str, typer.Option("--output", help="Run folder: a path or a URL.")] = "runs",
    resume: Annotated[bool, typer.Option("--resume", help="Go on with cells that were interrupted.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Compute cells again that are complete.")] = False,
    memory: Annotated[
        bool,
        typer.Option("--memory/--no-memory", help="Probe peak memory on the CPU (two extra steps a cell)."),
    ] = True,
    flops: Annotated[
        bool, typer.Option("--flops", help="Also print the multiply-adds of one image, part by part.")
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the cells and stop.")] = False,
) -> None:
    """Run methods over datasets, print a table and say where the records are.

    Cells that the run folder already holds are not computed again.
    """
    from tta_bench.cli.flops import print_flops
    from tta_bench.cli.progress import ConsoleReporter, say
    from tta_bench.engine.planning import describe_defaults
    from tta_bench.engine.session import Session
    from tta_bench.records.sink import Sink
    from tta_bench.records.store import Store
    from tta_bench.reports.text import report_console

    given = {
        "methods": method,
        "datasets": dataset,
        "models": model,
        "corruptions": corruption,
        "severities": severity,
        "limit": limit,
        "subset": subset,
        "batch_size": batch_size,
        "seeds": seed,
        "reset": reset,
        "settings": settings,
        "preset": preset,
        "chosen": chosen,
        "device": device,
        "precision": precision,
        "pretrained": pretrained,
        "prompts": prompts,
        "bad_image": bad_image,
        "workers": workers,
        "emulate_distributed": emulate_distributed,
        "elastic": elastic,
        "frost_dir": None if frost_dir is None else str(frost_dir),
    }
    spec = _spec(given, config, suite)
    console = report_console()
    cells = _plan(spec, plugin or [])

    say(console, f"tta-bench: {describe_defaults(cells, spec)}")
    if dry_run:
        for cell in cells:
            say(console, cell.label)
        return
    store = Store(output).open(create=True)
    with ConsoleReporter(console, len(cells)) as reporter:
        session = Session(spec, Sink(store), reporter, resume=resume, force=force, probe_memory=memory)
        ended = _to_the_end(session, cells)
    _report(console, output, ended)
    counted = print_flops(console, cells, spec) if flops else True
    if not counted or any(one.status == "failed" for one in ended):
        raise typer.Exit(FAILED)


def _to_the_end(session: Session, cells: Sequence[CellPlan]) -> list[Ended]:
    """Run the cells; say what is left to do where the user interrupts them."""
    try:
        return session.run(cells)
    except KeyboardInterrupt:
        sentence = (
            "tta-bench: interrupted; the same command with --resume goes on from here, but begins the cell under way "
            "again if its reset is shift or never"
        )
        typer.echo(sentence, err=True)
        raise typer.Exit(INTERRUPTED) from None


def _spec(given: dict[str, Any], config: Path | None, suite: str | None) -> RunSpec:
    """Return the specification: the command line over the file over the suite over the defaults."""
    from tta_bench.config import merged, read_config
    from tta_bench.spec import RunSpec, limit_to_subset, parse_severities
    from tta_bench.suites import within

    typed = {key: value for key, value in given.items() if value is not None}
    values: dict[str, Any] = merged([read_config(config) if config else {}, typed])
    values = within(suite, values) if suite else values
    if "limit" in values:
        values["subset"] = limit_to_subset(values.pop("limit"))
    if "severities" in values:
        values["severities"] = parse_severities([str(item) for item in values["severities"]])
    values["options"] = {key: values.pop(key) for key in DATA_OPTIONS if key in values}
    values = {key: tuple(value) if isinstance(value, list) else value for key, value in values.items()}
    return RunSpec(**({"methods": (), "datasets": ()} | values))


def _plan(spec: RunSpec, files: Sequence[Path]) -> list[CellPlan]:
    from tta_bench.engine.planning import plan

    return plan(spec, _plugins(files))


def _plugins(files: Sequence[Path]) -> dict[str, type[Method]]:
    """Return the methods of the plug-in files by name.

    Raises:
        PluginError: If a name is that of a registered method, or stands in two files.
    """
    from tta_bench import registry
    from tta_bench.errors import PluginError
    from tta_bench.hyperparameters import methods_in_file

    found: dict[str, type[Method]] = {}
    owners = {
        name: f"package {registry.owner(point)}" for name, point in registry.registered("methods").items()
    }
    for path in {one.resolve(): one for one in files}.values():
        methods = methods_in_file(path)
        for name in methods:
            if name in owners:
                raise PluginError(
                    f"method {name!r} of {path} is also one of {owners[name]}; give it another `name`"
                )
            owners[name] = str(path)
        found |= methods
    return found


def _report(console: Console, output: str, ended: Sequence[Ended]) -> None:
    """Print the table of this run's cells, and name what was written."""
    from tta_bench.cli.progress import say
    from tta_bench.reports.leaderboard import leaderboard, write_csv
    from tta_bench.reports.skipped import skipped_images
    from tta_bench.reports.table import print_table

    console.print()
    print_table(leaderboard([output], cells={one.cell for one in ended}, allow_mixed=True), console)
    path = f"{output.rstrip('/')}/leaderboard.csv"
    write_csv(leaderboard([output], allow_mixed=True), path)
    computed = sum(one.status != "reused" for one in ended)
    say(console, f"\n{computed} cells computed, {len(ended) - computed} reused. Written:")
    say(console, f"  {output}/cells/*/records.parquet  one row per image")
    say(console, f"  {output}/cells/*/manifest.json    hyper-parameters, protocol, versions, machine")
    say(console, f"  {path}  the table of the whole folder")
    for sentence in skipped_images(output, {one.cell for one in ended}):
        say(console, sentence, style="yellow")
    for one in ended:
        if one.status == "failed":
            where = f"{output}/cells/{one.cell}/manifest.json"
            say(console, f"failed: {one.label}; the traceback is in {where}", style="red")
