# SPDX-License-Identifier: Apache-2.0
"""Write all corrupted copies of one image: the work of one process of `corrupt_folder`."""

from __future__ import annotations

import hashlib
import os
from dataclasses import asdict, dataclass
from pathlib import Path, PurePosixPath
from typing import Any, Final, Literal, NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from tta_bench.data.corruptions.base import Options
from tta_bench.data.corruptions.constants import MIN_SIZE, Scale
from tta_bench.data.corruptions.engine import corrupt
from tta_bench.data.images.files import Paths, UnreadableImageError, decode
from tta_bench.data.images.preprocess import Preprocess
from tta_bench.data.layouts.walk import without_suffix

FileFormat = Literal["png", "jpeg"]
_JPEG_SUFFIXES: Final = (".jpg", ".jpeg")


class Done(NamedTuple):
    """The outcome for one image.

    Attributes:
        file: Path relative to the source folder.
        sums: SHA-256 of each corrupted file, by its path relative to the target folder.
        written: How many of them were not there before.
        bad: Why the image could not be used; empty if it could.
    """

    file: str
    sums: dict[str, str]
    written: int
    bad: str = ""


@dataclass(frozen=True)
class Copying:
    """Corrupts an image and names the places of its copies; called with a path relative to ``src``."""

    src: Path
    dst: Path
    names: tuple[str, ...]
    severities: tuple[int, ...]
    seed: int
    scale: Scale | None
    options: Options
    resize: int | None
    crop: int | None
    file_format: FileFormat

    def settings(self) -> dict[str, Any]:
        """Return what decides the pixels, apart from corruption, severity and image."""
        return {
            "seed": self.seed,
            "scale": self.scale or "by size",
            "options": asdict(self.options),
            "resize": self.resize,
            "crop": self.crop,
            "file_format": self.file_format,
        }

    @staticmethod
    def id_of(file: str) -> str:
        """Return the id of an image by its path, which stands for its random numbers: the path without the suffix."""
        return without_suffix(file)

    def renamed(self, file: str) -> str:
        """Return the relative path of a copy: the suffix says the format."""
        path = PurePosixPath(file)
        if self.file_format == "jpeg":
            return file if path.suffix.lower() in _JPEG_SUFFIXES else str(path.with_suffix(".jpg"))
        return str(path.with_suffix(".png"))

    def __call__(self, file: str) -> Done:
        """Write the copies of one image that are not there yet."""
        targets = {
            f"{name}/{severity}/{self.renamed(file)}": (name, severity)
            for name in self.names
            for severity in self.severities
        }
        missing = [target for target in targets if not (self.dst / target).exists()]
        if missing:
            try:
                image = self._load(file)
            except UnreadableImageError as error:
                return Done(file, {}, 0, f"{error.where} cannot be decoded ({error.reason})")
            if min(image.shape[1:]) < MIN_SIZE:
                size = f"{image.shape[1]}x{image.shape[2]}"
                return Done(file, {}, 0, f"{self.src / file} is {size}, smaller than {MIN_SIZE} pixels")
            for target in missing:
                self._write(target, self._corrupted(image, file, *targets[target]))
        sums = {target: hashlib.sha256((self.dst / target).read_bytes()).hexdigest() for target in targets}
        return Done(file, sums, len(missing))

    def _load(self, file: str) -> Tensor:
        image = decode(Paths(self.src, [file]), 0)
        if self.crop is not None:
            return Preprocess((self.crop, self.crop), self.resize)(image)
        if self.resize is not None:
            ratio = self.resize / min(image.size)
            size = (int(image.height * ratio + 1e-6), int(image.width * ratio + 1e-6))
            return Preprocess(size)(image)
        return torch.from_numpy(np.array(image)).permute(2, 0, 1)

    def _corrupted(self, image: Tensor, file: str, name: str, severity: int) -> Image.Image:
        batch = image.contiguous()[None]
        result = corrupt(
            batch, name, severity, self.seed, ids=[self.id_of(file)], scale=self.scale, options=self.options
        )
        return Image.fromarray(result[0].permute(1, 2, 0).contiguous().numpy())

    def _write(self, target: str, image: Image.Image) -> None:
        """Write under another name and rename, so that a file that is there is whole."""
        path = self.dst / target
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_name(f".{path.name}.{os.getpid()}.part")
        if self.file_format == "jpeg":
            image.save(part, "JPEG", quality=85, optimize=True)
        else:
            image.save(part, "PNG", compress_level=3)
        part.replace(path)
