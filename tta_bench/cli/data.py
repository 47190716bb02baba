# SPDX-License-Identifier: Apache-2.0
"""``tta-bench data``: list, check, prepare and corrupt datasets."""

from __future__ import annotations

import sys
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tta_bench.cli.examples import epilog

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.console import Console

    from tta_bench.data.acquire.check import Finding
    from tta_bench.data.catalogue.files import Download, Files
    from tta_bench.data.dataset import Dataset

FAILED = 1
ABSENT_SHOWN, LOOKED_FOR = 3, 20
"""Shifts named of those that are not there: beside others, and where nothing is."""


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
    found, absent = [], []
    for finding in look(dataset, files, parse_severities([severity])):
        if finding.root is None:
            absent.append(finding)
            continue
        found.append(finding)
        _print_finding(console, finding)
    if absent:
        _print_absent(console, absent, bool(found))
    bad = sum(bool(finding.problems) for finding in found) + len(absent)
    if found:
        shifts = "1 shift is" if len(found) + len(absent) == 1 else f"{len(found) + len(absent)} shifts are"
        console.print(f"{len(found) + len(absent) - bad} of {shifts} complete", highlight=False)
    if bad:
        raise typer.Exit(FAILED)


def _print_absent(console: Console, absent: Sequence[Finding], others: bool) -> None:
    """Print in one line which shifts are not there, and what helps."""
    shown = ABSENT_SHOWN if others else LOOKED_FOR
    names = [str(one.shift) for one in absent]
    listed = ", ".join(names[:shown]) + (f" and {len(names) - shown} more" if len(names) > shown else "")
    problem = absent[0].problems[0]
    _say(console, f"{listed} not there: {problem}" if others else f"{problem} (looked for {listed})", "red")


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
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Download without asking.")] = False,
) -> None:
    """Download what can be downloaded, with resume and checksums; print the exact steps for the rest.

    It says first how large that is and how much room there is, and asks.
    """
    from tta_bench.data.acquire.prepare import chosen_parts, instructions
    from tta_bench.data.layouts.locate import roots
    from tta_bench.reports.text import report_console

    dataset, files = _known(name)
    target = (root or roots()[0]).expanduser()
    console = report_console()
    _say(console, f"{dataset.name}: {dataset.title}")
    _say(console, f"licence: {dataset.licence}; cite: {dataset.citation}")
    for note in files.notes:
        _say(console, f"note: {note}")
    downloads = chosen_parts(files, part or [])
    if downloads and _agreed(console, downloads, target, dry_run, yes):
        _download(console, downloads, target)
    if files.steps:
        _say(
            console, "By hand:" if downloads else "This dataset cannot be downloaded automatically. By hand:"
        )
    for line in instructions(files, target):
        _say(console, line)


def _agreed(console: Console, downloads: Sequence[Download], target: Path, dry_run: bool, yes: bool) -> bool:
    """Say what would be fetched and how much room there is, and return whether to go on.

    Raises:
        BadInputError: If there is no room, or nobody to ask.
    """
    from tta_bench.data.acquire.prepare import check_room, free_bytes, in_words, outstanding, total_size
    from tta_bench.errors import BadInputError

    left = downloads if dry_run else outstanding(downloads, target)
    if not left:
        return True
    files, free = "1 file" if len(left) == 1 else f"{len(left)} files", in_words(free_bytes(target))
    _say(console, f"{files} to download into {target} ({total_size(left)}; {free} are free there)")
    for download in left:
        _say(console, f"  {download.url}  {download.checksum}")
    if dry_run:
        return False
    check_room(left, target)
    if yes:
        return True
    if not _somebody_answers():
        raise BadInputError("nobody can be asked whether to download these files; give --yes to do it")
    return typer.confirm("Download them?")


def _somebody_answers() -> bool:
    return sys.stdin is not None and sys.stdin.isatty()


def _download(console: Console, downloads: Sequence[Download], target: Path) -> None:
    from rich.progress import BarColumn, DownloadColumn, Progress, TimeRemainingColumn, TransferSpeedColumn

    from tta_bench.data.acquire.prepare import get

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
            report=lambda line: _say(console, line),
        )


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
    from tta_bench.data.dataset import Dataset, find_dataset, is_path
    from tta_bench.errors import BadInputError

    dataset = find_dataset(name)[0] if is_path(name) else registry.load("datasets", name)
    files = files_of(dataset) if isinstance(dataset, Dataset) else None
    if files is None:
        raise BadInputError(
            f"{name!r} has no files to prepare or check: it is inside the package, is generated while loading, or is a "
            "path of your own, which `tta-bench describe` looks into"
        )
    return dataset, files


def _say(console: Console, text: str, style: str | None = None) -> None:
    console.print(text, markup=False, highlight=False, soft_wrap=True, style=style)
