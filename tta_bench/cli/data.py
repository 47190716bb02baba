# SPDX-License-Identifier: Apache-2.0
"""``tta-bench data``: list, check, prepare and corrupt datasets."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tta_bench.cli.examples import epilog

if TYPE_CHECKING:
    from rich.console import Console

    from tta_bench.data.acquire.check import Finding
    from tta_bench.data.catalogue.files import Files
    from tta_bench.data.dataset import Dataset

FAILED = 1


class Format(Enum):
    """File formats of corrupted images."""

    png = "png"
    jpeg = "jpeg"


class Elastic(Enum):
    """Published variants of the elastic transform."""

    original = "original"
    imagecorruptions = "imagecorruptions"


class BadImage(Enum):
    """Policies for an image that cannot be decoded."""

    stop = "stop"
    skip = "skip"


Name = Annotated[str, typer.Argument(help="Name of a dataset; `tta-bench data list` shows all.")]
Resize = Annotated[int | None, typer.Option(min=1, help="Shorter side before the crop, e.g. 256.")]
Crop = Annotated[int | None, typer.Option(min=1, help="Side of the centre crop, e.g. 224.")]
FormatOption = Annotated[
    Format, typer.Option("--format", help="png keeps the pixels; jpeg is as ImageNet-C was distributed.")
]
ElasticOption = Annotated[
    Elastic | None, typer.Option(help="Variant of elastic_transform; default: by image size.")
]
FrostDir = Annotated[Path | None, typer.Option(help="Folder of frost images; default: generated.")]
BadImageOption = Annotated[BadImage, typer.Option(help="Stop at an unreadable image, or skip it.")]

data_app = typer.Typer(
    help="List, check, prepare and corrupt datasets.", no_args_is_help=True, rich_markup_mode=None
)


@data_app.command("list", epilog=epilog("data list"))
def list_data() -> None:
    """List the datasets that live in files, whether they are present, and how to get them.

    Datasets of other packages are named without importing them.
    """
    from rich.table import Table

    from tta_bench import registry
    from tta_bench.data.layouts.locate import roots
    from tta_bench.reports.text import report_console

    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in ("dataset", "here", "by download", "licence", "what it is"):
        table.add_column(column, overflow="fold")
    for name, point in registry.registered("datasets").items():
        if registry.built_in(point):
            row = _listed(name)
            if row is not None:
                table.add_row(name, *row)
        else:
            table.add_row(name, "?", "?", f"see {registry.owner(point)}", registry.summary(point))
    console = report_console()
    console.print(table)
    looked = ", ".join(map(str, roots()))
    _say(console, f"\nLooked in {looked} (TTA_BENCH_DATA)", "dim")


def _listed(name: str) -> tuple[str, str, str, str] | None:
    """Return whether a dataset is here and may be fetched, its licence and title; None if it has no files."""
    from tta_bench import registry
    from tta_bench.data.catalogue.declare import files_of
    from tta_bench.data.dataset import Dataset
    from tta_bench.data.layouts.opening import is_here

    dataset = registry.load("datasets", name)
    files = files_of(dataset) if isinstance(dataset, Dataset) else None
    if files is None:
        return None
    return (
        "yes" if is_here(dataset) else "no",
        "yes" if files.downloads else "no",
        dataset.licence,
        dataset.title,
    )


@data_app.command(epilog=epilog("data check"))
def check(
    name: Name,
    severity: Annotated[
        str, typer.Option("--severity", help="Severities of a corrupted dataset: 5, 1-5 or 1,3.")
    ] = "1-5",
) -> None:
    """Count images and classes; report misplaced folders and stray files, and how to fix them."""
    from tta_bench.data.acquire.check import check as look
    from tta_bench.reports.text import report_console
    from tta_bench.spec import parse_severities

    dataset, files = _known(name)
    console = report_console()
    findings = []
    for finding in look(dataset, files, parse_severities([severity])):
        findings.append(finding)
        _print_finding(console, finding)
    bad = sum(bool(finding.problems) for finding in findings)
    console.print(f"{len(findings) - bad} of {len(findings)} shifts are complete", highlight=False)
    if bad:
        raise typer.Exit(FAILED)


def _print_finding(console: Console, finding: Finding) -> None:
    from tta_bench.reports.text import counted

    survey = finding.survey
    counts = counted(survey.images, "image") + (f" of {finding.expected}" if finding.expected else "")
    line = f"{finding.shift}: {counts}, {counted(survey.classes, 'class', 'classes')}"
    if survey.first_hash:
        line += f", first image sha256 {survey.first_hash}"
    state = "incomplete" if finding.problems else "complete"
    _say(console, f"{line}: {state}{f', in {finding.root}' if finding.root else ''}")
    for problem in finding.problems:
        _say(console, f"  {problem}", "red")
    for note in finding.notes:
        _say(console, f"  note: {note}", "dim")


@data_app.command(epilog=epilog("data prepare"))
def prepare(
    name: Name,
    root: Annotated[
        Path | None, typer.Option("--root", help="Data folder; default: the first of TTA_BENCH_DATA.")
    ] = None,
    part: Annotated[
        list[str] | None, typer.Option("--part", help="Part of the dataset, e.g. noise; repeat for several.")
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="List what would be downloaded, and stop.")
    ] = False,
) -> None:
    """Download what can be downloaded, with resume and checksums; print the exact steps for the rest."""
    from rich.progress import BarColumn, DownloadColumn, Progress, TimeRemainingColumn, TransferSpeedColumn

    from tta_bench.data.acquire.prepare import chosen_parts, get, instructions, total_size
    from tta_bench.data.layouts.locate import roots
    from tta_bench.reports.text import counted, report_console

    dataset, files = _known(name)
    target = (root or roots()[0]).expanduser()
    console = report_console()
    _say(console, f"{dataset.name}: {dataset.title}")
    _say(console, f"licence: {dataset.licence}; cite: {dataset.citation}")
    for note in files.notes:
        _say(console, f"note: {note}")
    downloads = chosen_parts(files, part or [])
    if downloads:
        _say(
            console, f"{counted(len(downloads), 'file')} to download into {target} ({total_size(downloads)})"
        )
        for download in downloads:
            _say(console, f"  {download.url}  {download.checksum}")
        if not dry_run:
            with Progress(
                BarColumn(),
                DownloadColumn(),
                TransferSpeedColumn(),
                TimeRemainingColumn(),
                console=console,
                transient=True,
                disable=not console.is_terminal,
            ) as bar:
                task = bar.add_task("bytes", total=None)
                get(
                    downloads,
                    target,
                    progress=lambda done, total: bar.update(task, completed=done, total=total or None),
                    told=lambda line: _say(console, line),
                )
    if files.steps:
        _say(
            console, "By hand:" if downloads else "This dataset cannot be downloaded automatically. By hand:"
        )
    for line in instructions(files, target):
        _say(console, line)


@data_app.command(epilog=epilog("data corrupt"))
def corrupt(
    src: Annotated[Path, typer.Argument(help="Folder of images; its structure is kept.")],
    dst: Annotated[Path, typer.Argument(help="Folder for DST/CORRUPTION/SEVERITY/...")],
    corruption: Annotated[
        list[str] | None,
        typer.Option("--corruption", help="Name, group, or all (the fifteen); repeat for several."),
    ] = None,
    severity: Annotated[str, typer.Option("--severity", help="1 to 5, also 1-5 or 1,3.")] = "1-5",
    workers: Annotated[int, typer.Option("--workers", min=1, help="Processes.")] = 1,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Of the corruptions' random numbers.")] = 0,
    resize: Resize = None,
    crop: Crop = None,
    file_format: FormatOption = Format.png,
    elastic: ElasticOption = None,
    frost_dir: FrostDir = None,
    on_bad_image: BadImageOption = BadImage.stop,
) -> None:
    """Write corrupted copies of a folder of images; run it again to resume."""
    from rich.progress import Progress

    from tta_bench.data.corruptions import Options
    from tta_bench.data.corruptions.folder import corrupt_folder
    from tta_bench.reports.text import counted, report_console
    from tta_bench.spec import parse_severities

    console = report_console()
    with Progress(console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("images", total=None)
        report = corrupt_folder(
            src,
            dst,
            corruption or ["all"],
            parse_severities([severity]),
            seed,
            workers,
            options=Options(elastic=elastic.value if elastic else None, frost_dir=frost_dir),
            resize=resize,
            crop=crop,
            file_format=file_format.value,
            on_bad_image=on_bad_image.value,
            progress=lambda done, total: bar.update(task, completed=done, total=total),
        )
    _say(
        console,
        f"{counted(report.images, 'image')}, {counted(report.files, 'file')} in {dst}, {report.written} of them new",
    )
    for one in report.left_out:
        _say(console, f"skipped: {one.reason}", "red")


def _known(name: str) -> tuple[Dataset, Files]:
    """Return a registered dataset and its files.

    Raises:
        BadInputError: If it is not kept in files of its own.
    """
    from tta_bench import registry
    from tta_bench.data.catalogue.declare import files_of
    from tta_bench.data.dataset import Dataset
    from tta_bench.errors import BadInputError

    dataset = registry.load("datasets", name)
    files = files_of(dataset) if isinstance(dataset, Dataset) else None
    if files is None:
        raise BadInputError(
            f"{name!r} has no files to prepare or check: it is generated while loading, or is a path of your own"
        )
    return dataset, files


def _say(console: Console, text: str, style: str | None = None) -> None:
    console.print(text, markup=False, highlight=False, soft_wrap=True, style=style)
