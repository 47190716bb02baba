# SPDX-License-Identifier: Apache-2.0
"""Pictures of islands: each location of a layer as a colour, on a sheet, one by one, and as a GIF."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from tta_bench.data.images.preprocess import Preprocess
from tta_bench.errors import BadInputError
from tta_bench.metrics.islands import unit_rows
from tta_bench.spec.whole import whole
from tta_bench.studies.islands.basis import Bytes, Embedding, Moments, own_basis, to_rgb, tsne
from tta_bench.studies.islands.subjects import Still, Subject

TILE, GAP, CAPTION = 176, 8, 18
"""Side of a tile, space between tiles and height of a caption, pixels."""
COLUMNS = 7
FRAME_MS = 500
INK, PAPER = (30, 30, 30), (255, 255, 255)


class Look(NamedTuple):
    """The mapping from features to colours.

    Attributes:
        embedding: Three components by ``"pca"`` or ``"tsne"``.
        basis: One PCA basis for all layers of one width (``"shared"``), or one for each layer (``"own"``).
        perplexity: Of t-SNE.
        seed: Of t-SNE.
    """

    embedding: Embedding = "pca"
    basis: Literal["shared", "own"] = "shared"
    perplexity: float = 3.0
    seed: int = 0


def layer_colours(subject: Subject, still: Still, look: Look) -> list[Bytes]:
    """Return the colours (H, W, 3) of every layer on one image; one layer's features are held at a time.

    With a shared basis the same feature has the same colour in all layers of one width.
    """
    moments: dict[int, Moments] = {}
    if look.embedding == "pca" and look.basis == "shared":

        def gather(index: int, maps: Tensor) -> None:
            moments.setdefault(maps.shape[-1], Moments()).add(unit_rows(maps[0].double().numpy()))

        subject.visit(still, gather)
    bases = {width: found.basis() for width, found in moments.items()}
    components: list[NDArray[np.float64]] = []
    widths: list[int] = []

    def project(index: int, maps: Tensor) -> None:
        field = maps[0].double().numpy()
        widths.append(field.shape[-1])
        if look.embedding == "tsne":
            components.append(tsne(field, perplexity=look.perplexity, seed=look.seed))
            return
        unit = unit_rows(field)
        components.append((bases.get(field.shape[-1]) or own_basis(unit)).project(unit))

    subject.visit(still, project)
    ranges = {
        width: (
            min(part.min() for part, own in zip(components, widths, strict=True) if own == width),
            max(part.max() for part, own in zip(components, widths, strict=True) if own == width),
        )
        for width in bases
    }
    return [
        to_rgb(part, *ranges.get(width, (None, None))) for part, width in zip(components, widths, strict=True)
    ]


def still_colours(still: Still, side: int = TILE) -> Bytes:
    """Return the image itself (side, side, 3)."""
    x = still.load(Preprocess((side, side), side, "bilinear"))
    return x.permute(1, 2, 0).numpy()


def sheet(tiles: Sequence[tuple[str, Bytes]]) -> Image.Image:
    """Return captioned tiles in rows, each enlarged without smoothing."""
    columns = min(COLUMNS, len(tiles))
    rows = -(-len(tiles) // columns)
    page = Image.new("RGB", (columns * (TILE + GAP) + GAP, rows * (TILE + CAPTION + GAP) + GAP), PAPER)
    draw = ImageDraw.Draw(page)
    for place, (caption, colours) in enumerate(tiles):
        left = GAP + place % columns * (TILE + GAP)
        top = GAP + place // columns * (TILE + CAPTION + GAP)
        page.paste(enlarged(colours), (left, top))
        draw.text((left, top + TILE + 3), _fitted(draw, caption), fill=INK, font=_font())
    return page


def enlarged(colours: Bytes, side: int = TILE) -> Image.Image:
    """Return colours (H, W, 3) as an image of a given height, each location a rectangle."""
    return Image.fromarray(colours).resize((side, side), Image.Resampling.NEAREST)


def save_gif(tiles: Sequence[tuple[str, Bytes]], path: Path) -> None:
    """Write captioned tiles as the frames of a GIF that loops.

    Raises:
        BadInputError: If there is a single frame.
    """
    if len(tiles) < 2:
        raise BadInputError(
            f"a GIF needs 2 layers or more, got {len(tiles)}; choose more layers, or leave the GIF out"
        )
    frames = [_frame(caption, colours) for caption, colours in tiles]
    first, *rest = (frame.quantize(128, dither=Image.Dither.NONE) for frame in frames)
    with whole(path) as part:
        first.save(
            part, format="GIF", save_all=True, append_images=rest, duration=FRAME_MS, loop=0, disposal=1
        )


def _frame(caption: str, colours: Bytes) -> Image.Image:
    side = 2 * TILE
    frame = Image.new("RGB", (side, side + CAPTION), PAPER)
    frame.paste(enlarged(colours, side), (0, 0))
    draw = ImageDraw.Draw(frame)
    draw.text((4, side + 3), _fitted(draw, caption, side - 8), fill=INK, font=_font())
    return frame


def _font() -> ImageFont.ImageFont | ImageFont.FreeTypeFont:
    return ImageFont.load_default(12)


def _fitted(draw: ImageDraw.ImageDraw, caption: str, room: int = TILE) -> str:
    """Return a caption that fits under its tile, cut in front where it is too long."""
    text = caption
    while draw.textlength(text, font=_font()) > room and len(text) > 2:
        text = "…" + text.lstrip("…")[1:]
    return text
