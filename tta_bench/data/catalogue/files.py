# SPDX-License-Identifier: Apache-2.0
"""Facts about a dataset's files: where they lie, how many there are, where they come from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from tta_bench.data.dataset import Shift
from tta_bench.data.layouts.base import Layout

Unpack = Literal["", "tar", "zip"]


@dataclass(frozen=True)
class Download:
    """One file that may be fetched without registration.

    Attributes:
        url: Where it is.
        checksum: ``md5:...`` or ``sha256:...``.
        unpack: How it is unpacked; empty: it is used as it is.
        into: Folder below the data root that it goes or unpacks to.
        size: Bytes; 0 if not published.
        part: Name of the part of the dataset that it holds.
    """

    url: str
    checksum: str
    unpack: Unpack = ""
    into: str = "."
    size: int = 0
    part: str = ""

    @property
    def file(self) -> str:
        """The name it is stored under."""
        return self.url.partition("?")[0].rstrip("/").rpartition("/")[2]


@dataclass(frozen=True)
class Files:
    """The files of one dataset.

    Attributes:
        name: Of the dataset.
        folders: Names that its folder below a data root goes by, the official one first.
        layout: How images and labels lie in it.
        tree: What the folder looks like, one line each.
        counts: Images per shift, by corruption or domain; ``""`` stands for all others; 0 or absent: unknown.
        downloads: What may be fetched.
        steps: How to get what may not be fetched, one step each.
        border: Pixels to cut from every side.
        cropped: Whether the files are crops already.
        subsets: Subsets with a name of their own.
        clean: The files that corruptions can be generated from while loading; None: they cannot.
        first: Shorter side and crop (pixels) before a generated corruption.
        defaults: Options of generated corruptions where the user names none.
        notes: What is chosen where sources differ, one sentence each.
    """

    name: str
    folders: tuple[str, ...]
    layout: Layout
    tree: tuple[str, ...]
    counts: Mapping[str, int] = field(default_factory=dict)
    downloads: tuple[Download, ...] = ()
    steps: tuple[str, ...] = ()
    border: int = 0
    cropped: bool = False
    subsets: tuple[str, ...] = ()
    clean: Files | None = None
    first: tuple[int, int] | None = None
    defaults: Mapping[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    @property
    def generates(self) -> bool:
        """Whether nothing was published but the clean images, which corruptions are always generated from."""
        return self.clean is not None and self.layout is self.clean.layout

    @property
    def public(self) -> str:
        """Name of the dataset on the command line; training images come with the others."""
        return self.name.removesuffix("-train")

    def count(self, shift: Shift) -> int:
        """Return how many images a shift should have, 0 if that is not known."""
        return self.counts.get(shift.corruption, self.counts.get("", 0))
