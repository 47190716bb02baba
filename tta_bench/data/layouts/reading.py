# SPDX-License-Identifier: Apache-2.0
"""Reading of a dataset's images as model inputs, from its declaration and the user's choices."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from tta_bench.errors import BadInputError, UnknownNameError
from tta_bench.spec import BAD_IMAGE

FILE_WORKERS = 2
AS_DISTRIBUTED = "as distributed"
KNOWN = frozenset(("workers", "bad_image", "emulate_distributed", "elastic", "frost_dir", "allow_incomplete"))


@dataclass(frozen=True)
class Generated:
    """A corruption that is applied while loading.

    Attributes:
        name: Of the corruption.
        severity: 1 to 5.
        seed: Of its random numbers.
        first: Shorter side (pixels) and crop that images are brought to before; None: the model's own.
        options: Of the corruptions, see `tta_bench.data.corruptions.Options`.
    """

    name: str
    severity: int
    seed: int = 0
    first: tuple[int, int] | None = None
    options: tuple[tuple[str, Any], ...] = ()


@dataclass(frozen=True)
class Reading:
    """Settings for reading images.

    Attributes:
        border: Pixels to cut from every side first (ObjectNet marks its images with a red frame).
        cropped: Whether the files are crops already, so that a model takes them whole.
        generated: The corruption to apply; None: none.
        workers: Processes that decode; None: the kind of source decides.
        bad_image: Whether an unreadable image stops the run or is left out.
        expected: How many images there should be; 0: that is not known.
        allow_incomplete: Whether fewer are taken, which `origin` then says.
        subsets: Named subsets: a list file's name by the subset's name.
        origin: Where the corruption comes from, for the protocol.
    """

    border: int = 0
    cropped: bool = False
    generated: Generated | None = None
    workers: int | None = None
    bad_image: Literal["stop", "skip"] = "stop"
    expected: int = 0
    allow_incomplete: bool = False
    subsets: tuple[str, ...] = ()
    origin: str = AS_DISTRIBUTED


def checked_options(options: Mapping[str, Any]) -> dict[str, Any]:
    """Return the data options of a run, refusing what no reader knows.

    Raises:
        UnknownNameError: For an option that no reader knows.
        BadInputError: For a value that it cannot take.
    """
    for name in options:
        if name not in KNOWN:
            raise UnknownNameError("data option", name, KNOWN)
    workers = options.get("workers")
    if workers is not None and (isinstance(workers, bool) or not isinstance(workers, int) or workers < 0):
        raise BadInputError(
            f"workers must be 0 or more, got {workers!r}; 0 loads in the main process", options=("workers",)
        )
    bad = options.get("bad_image", "stop")
    if bad not in BAD_IMAGE:
        raise BadInputError(
            f"bad_image must be {' or '.join(BAD_IMAGE)}, got {bad!r}", options=("bad_image",)
        )
    allowed = options.get("allow_incomplete")
    if not isinstance(allowed, bool | None):
        raise BadInputError(
            f"allow_incomplete must be true or false, got {allowed!r}", options=("allow_incomplete",)
        )
    return dict(options)


def corruption_options(
    options: Mapping[str, Any], defaults: Mapping[str, str] | None = None
) -> tuple[tuple[str, Any], ...]:
    """Return the options that change how corruptions look, in a fixed order, without those that say nothing.

    Args:
        options: Of the run.
        defaults: Those that hold where the run names none.
    """
    chosen: dict[str, Any] = {
        name: options.get(name) or (defaults or {}).get(name)
        for name in ("elastic", "emulate_distributed", "frost_dir")
    }
    folder = chosen["frost_dir"]
    if folder is not None and not Path(folder).is_dir():
        raise BadInputError(
            f"frost_dir must be a folder of images, got {str(folder)!r}; check the path",
            options=("frost_dir",),
        )
    if folder is not None:
        chosen["frost_dir"] = Path(folder)
    return tuple((name, value) for name, value in chosen.items() if value)


def photographs(chosen: tuple[tuple[str, Any], ...]) -> tuple[tuple[str, Any], ...]:
    """Return options with what holds for photographs where none is named: frost has generated textures."""
    return chosen if "frost_dir" in dict(chosen) else (*chosen, ("frost", "generated textures"))


def generated_origin(source: str, chosen: tuple[tuple[str, Any], ...]) -> str:
    """Return how the protocol names corruptions that are generated while loading."""
    details = ", ".join(name if value is True else f"{name}={value}" for name, value in chosen)
    return f"generated from {source}{f' ({details})' if details else ''}"
