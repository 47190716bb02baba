# SPDX-License-Identifier: Apache-2.0
"""``tta-bench islands``: what the layers of a network agree on, as pictures and as numbers."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.table import Table

    from tta_bench.studies.islands.measure import Curve

Names = list[str] | None


def islands(
    images: Annotated[list[Path] | None, typer.Argument(metavar="IMAGE...", help="Image files.")] = None,
    dataset: Annotated[
        str, typer.Option("--dataset", help="Dataset instead of, or beside, image files, as in run.")
    ] = "",
    limit: Annotated[int, typer.Option("--limit", help="Images of the dataset (the first N).", min=1)] = 20,
    model: Annotated[
        Names, typer.Option("--model", help="Model whose layers are looked at; repeat for several.")
    ] = None,
    layers: Annotated[
        str, typer.Option("--layers", help="Numbers of layers, e.g. 0,3,11 or -1 for the last; or all.")
    ] = "all",
    method: Annotated[
        str, typer.Option("--method", help="Also a method that fits a student with locations: apm.")
    ] = "",
    updates: Annotated[
        str, typer.Option("--updates", help="Updates after which the student is looked at, e.g. 0,5,19.")
    ] = "",
    dense: Annotated[
        int | None,
        typer.Option(
            "--dense", help="Layer whose map a student's locations are fitted to, a quarter held out."
        ),
    ] = None,
    settings: Annotated[Names, typer.Option("--set", help="Hyper-parameter of the method.")] = None,
    pretrained: Annotated[
        bool, typer.Option("--pretrained/--no-pretrained", help="Without: random weights.")
    ] = True,
    with_controls: Annotated[
        bool,
        typer.Option(
            "--controls/--no-controls", help="Random weights, white noise and shuffled patches beside it."
        ),
    ] = True,
    threshold: Annotated[
        float, typer.Option("--threshold", help="Cosine from which two adjacent locations agree.")
    ] = 0.8,
    embedding: Annotated[str, typer.Option("--embedding", help="Colours by pca or by tsne.")] = "pca",
    basis: Annotated[
        str, typer.Option("--basis", help="One PCA basis for all layers of one width (shared), or own.")
    ] = "shared",
    perplexity: Annotated[float, typer.Option("--perplexity", help="Of t-SNE.")] = 3.0,
    seed: Annotated[int, typer.Option("--seed", help="Of shuffles, noise, draws and t-SNE.", min=0)] = 0,
    pictures: Annotated[
        int, typer.Option("--pictures", help="Images of the dataset that are drawn.", min=0)
    ] = 4,
    gif: Annotated[bool, typer.Option("--gif/--no-gif", help="Make a GIF over the layers.")] = True,
    plot: Annotated[
        bool, typer.Option("--plot/--no-plot", help="Draw the curves (needs matplotlib).")
    ] = True,
    output: Annotated[Path, typer.Option("--output", help="Folder of the files.")] = Path("islands"),
) -> None:
    """Show islands of agreement: colours per layer, and how far adjacent locations agree beyond chance."""
    from tta_bench.errors import BadInputError
    from tta_bench.names import check_names

    check_names([method] if method else (), [dataset] if dataset else (), model or ())
    from tta_bench.reports.progress import say
    from tta_bench.reports.text import report_console
    from tta_bench.spec import settings_for
    from tta_bench.studies.apm_files import make_folder
    from tta_bench.studies.islands.pictures import Look
    from tta_bench.studies.islands.study import UPDATES, IslandsPlan, study_islands

    for option, value, allowed in (
        ("--embedding", embedding, ("pca", "tsne")),
        ("--basis", basis, ("shared", "own")),
    ):
        if value not in allowed:
            raise BadInputError(f"{option} must be one of {', '.join(allowed)}, got {value!r}")
    plan = IslandsPlan(
        images=tuple(images or ()), dataset=dataset, limit=limit, models=tuple(model or ("pocket-clip",)),
        layers=None if layers == "all" else _numbers("--layers", layers),
        method=method, dense=dense, updates=_numbers("--updates", updates) if updates else UPDATES,
        values=settings_for(method, settings or []), pretrained=pretrained, with_controls=with_controls,
        threshold=threshold, seed=seed, pictures=pictures,
        look=Look(embedding, basis, perplexity, seed),  # type: ignore[arg-type]  # checked above
    )  # fmt: skip
    console = report_console()
    make_folder(output)
    result = study_islands(plan)
    console.print(_table(result.curves))
    for line in result.sentences():
        say(console, line)
    written = result.save(output, plot=plot, gif=gif)
    say(console, f"Written to {output}: {len(written)} files, from {written[0].name} to {written[-1].name}")
    if gif and any(len(curve.layers) < 2 for curve in result.curves):
        raise BadInputError("a GIF needs 2 layers or more, got 1; choose more with --layers, or use --no-gif")


def _numbers(option: str, text: str) -> tuple[int, ...]:
    from tta_bench.errors import BadInputError

    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError:
        raise BadInputError(f"{option} must be whole numbers such as 0,3,11, got {text!r}") from None


def _table(found: Sequence[Curve]) -> Table:
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    table.add_column("model", overflow="fold")
    for name in ("layer", "agreement", "chance", "island size", "dimension"):
        table.add_column(name, justify="right", no_wrap=True)
    for curve in found:
        what = f"{curve.model}, {curve.control}" if curve.control else curve.model
        columns = (curve.layers, curve.agreement, curve.chance, curve.size_over_chance, curve.dimension)
        for row, (layer, agreement, chance, size, dimension) in enumerate(zip(*columns, strict=True)):
            table.add_row(
                what if row == 0 else "", str(layer), _interval(agreement.value, agreement.low, agreement.high),
                f"{chance.value:.2f}", f"{size.value:.1f} x", f"{dimension.value:.1f}",
            )  # fmt: skip
    return table


def _interval(value: float, low: float, high: float) -> str:
    return f"{value:.2f}" if low != low else f"{value:.2f} [{low:.2f}, {high:.2f}]"
