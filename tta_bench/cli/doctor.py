# SPDX-License-Identifier: Apache-2.0
"""``tta-bench doctor``: what is installed and found here, and whether this machine gives the committed results."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rich.console import Console

DIFFERENT = 1
ACCELERATORS = ("cuda", "mps", "xpu")


def doctor(
    reproduce: Annotated[
        bool,
        typer.Option("--reproduce", help="Recompute a small committed sample of results/pocket and compare."),
    ] = False,
    record: Annotated[
        Path | None,
        typer.Option("--record", help="Recompute the sample and write it to this file, to be committed."),
    ] = None,
) -> None:
    """Print versions, devices, caches and data found here, or recompute a sample of committed results."""
    from tta_bench.reports.text import report_console

    console = report_console()
    if record is not None:
        _record(console, record)
    elif reproduce:
        _reproduce(console)
    else:
        _describe(console)


def _describe(console: Console) -> None:
    from rich.table import Table

    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for name, text in (*_machine(), *_places(), *_data()):
        table.add_row(name, text)
    console.print(table, markup=False)
    console.print("\n`tta-bench doctor --reproduce` says whether this machine gives the committed results")


def _machine() -> Iterator[tuple[str, str]]:
    import torch

    from tta_bench.engine.machine import describe_machine, revision, versions

    yield from versions().items()
    yield "revision", revision() or "none: not run from a git checkout"
    machine = describe_machine(torch.device("cpu"))
    yield "cpu", f"{machine.device_name}, {machine.cores} cores, {machine.threads} threads"
    yield "instructions", machine.instructions
    yield from ((kind, _found(kind)) for kind in ACCELERATORS)


def _found(kind: str) -> str:
    """Return the names of the devices of a kind."""
    import torch

    from tta_bench.engine.devices import count_devices, device_name

    devices = [torch.device(kind, index) for index in range(count_devices(kind))]
    names = ", ".join(device_name(one) or "Metal" for one in devices) or "none found by torch"
    return f"{torch.version.cuda}: {names}" if devices and kind == "cuda" else names


def _places() -> Iterator[tuple[str, str]]:
    import torch
    from huggingface_hub import constants

    from tta_bench.data.acquire.prepare import free_bytes, in_words
    from tta_bench.data.layouts.locate import CACHE_VARIABLE, cache_folder
    from tta_bench.engine.kept import LIMIT_VARIABLE, entries, size_limit

    folders = {
        CACHE_VARIABLE: cache_folder(),
        "HF_HOME": Path(constants.HF_HOME),
        "TORCH_HOME": Path(torch.hub.get_dir()).parent,
    }
    for name, folder in folders.items():
        yield name, f"{folder}: {_size(folder)}, {in_words(free_bytes(folder))} free"
    taken = sum(one.size for one in entries())
    yield (
        LIMIT_VARIABLE,
        f"{size_limit() / 2**20:,.0f} MiB for features and initial states, which take {taken / 2**20:,.1f}",
    )


def _size(folder: Path) -> str:
    if not folder.is_dir():
        return "not there"
    total = count = 0
    for parent, _, names in os.walk(folder):  # links are not followed: a cache may link to its own files
        for name in names:
            try:
                status = os.lstat(os.path.join(parent, name))
            except OSError:
                continue  # gone or not ours to see
            total, count = total + status.st_size, count + 1
    return f"{total / 2**20:,.1f} MiB in {count} file{'' if count == 1 else 's'}"


def _data() -> Iterator[tuple[str, str]]:
    from tta_bench.data.acquire.prepare import free_bytes, in_words
    from tta_bench.data.layouts.locate import DATA_VARIABLE, roots
    from tta_bench.data.layouts.opening import here

    def told(root: Path) -> str:
        return f"{root}: {'' if root.is_dir() else 'not there, '}{in_words(free_bytes(root))} free"

    yield DATA_VARIABLE, ", ".join(map(told, roots()))
    found = here()
    yield "data found", ", ".join(found) if found else "none; `tta-bench data list` says how to get some"


def _record(console: Console, path: Path) -> None:
    from tta_bench.reports.progress import say
    from tta_bench.reproduction.recompute import made_on, sample_of
    from tta_bench.reproduction.sample import read_sample, write_sample

    write_sample(
        sample_of(read_sample().asked, made_on(), lambda label: say(console, label, style="dim")), path
    )
    say(console, f"written: {path}")


def _reproduce(console: Console) -> None:
    from tta_bench.reports.progress import say
    from tta_bench.reproduction.recompute import made_on, recompute
    from tta_bench.reproduction.sample import read_sample
    from tta_bench.reproduction.verdict import compare

    sample, here = read_sample(), made_on()
    cells = recompute(sample.asked, lambda label: say(console, label, style="dim"))
    verdict = compare(sample, cells, here)
    say(console, f"\ncommitted: {', '.join(f'{k} {v}' for k, v in sample.made_on.items())}", style="dim")
    say(console, f"here:      {', '.join(f'{k} {v}' for k, v in here.items())}", style="dim")
    for sentence in verdict.sentences():
        say(console, sentence)
    if verdict.label == "different":
        raise typer.Exit(DIFFERENT)
