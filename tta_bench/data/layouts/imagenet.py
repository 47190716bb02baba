# SPDX-License-Identifier: Apache-2.0
"""The ImageNet validation set: class folders, or the flat official archive with its ground truth."""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from pathlib import Path

from tta_bench.data.dataset import Shift
from tta_bench.data.layouts.base import FileLayout, Index, Survey, read_table, read_text, survey_of
from tta_bench.data.layouts.tree import ClassTree
from tta_bench.data.layouts.walk import images_below
from tta_bench.errors import BadInputError

FLAT = ("val", "ILSVRC2012_img_val", "validation", "ILSVRC/Data/CLS-LOC/val", "Data/CLS-LOC/val")
TRUTH = (
    "ILSVRC2012_devkit_t12",
    "imagenet_2012_validation_synset_labels.txt",
    "LOC_val_solution.csv",
    "ILSVRC/LOC_val_solution.csv",
)


@dataclass(frozen=True)
class Validation(FileLayout):
    """``val/<wnid>/ILSVRC2012_val_*.JPEG``, or ``val/ILSVRC2012_val_*.JPEG`` with one of the ground truths.

    The ground truth is the development kit, the list of synset labels in the order of the images, or the
    ``LOC_val_solution.csv`` of the localisation challenge, in the dataset's folder.

    Attributes:
        classes: The 1,000 wnids in label order.
    """

    classes: tuple[str, ...]

    @property
    def tree(self) -> ClassTree:
        """The layout with class folders."""
        return ClassTree(self.classes, (*FLAT, "."))

    def expects(self, shift: Shift) -> str:
        """Return the official path."""
        return "val"

    def present(self, root: Path, shift: Shift) -> bool:
        """Return whether class folders, or flat images with a ground truth, are there."""
        if self.tree.present(root, shift):
            return True
        return self._flat(root) is not None and self._truth(root) is not None

    def index(self, root: Path, shift: Shift) -> Index:
        """Return the images; ids are ``<wnid>/<file>`` in both layouts.

        Raises:
            BadInputError: If a flat image has no label in the ground truth.
        """
        if self.tree.present(root, shift):
            return self.tree.index(root, shift)
        flat, truth = self._flat(root), self._truth(root)
        assert flat is not None
        assert truth is not None
        wnids = _wnids(truth, self.classes)
        labels = {wnid: label for label, wnid in enumerate(self.classes)}
        index = Index(flat, [], [], [])
        for name in images_below(flat, nested=False):
            wnid = wnids.get(_number(name), "")
            if wnid not in labels:
                raise BadInputError(
                    f"{flat / name} has no label in {truth}; fetch the ground truth that belongs to these images"
                )
            index.files.append(name)
            index.ids.append(f"{wnid}/{name}")
            index.labels.append(labels[wnid])
        return index

    def survey(self, root: Path, shift: Shift) -> Survey:
        """Return what is there."""
        if self.tree.present(root, shift):
            return self.tree.survey(root, shift)
        return survey_of(self.index(root, shift))

    @staticmethod
    def _flat(root: Path) -> Path | None:
        folders = (root / path for path in (*FLAT, "."))
        return next((f for f in folders if f.is_dir() and any(f.glob("ILSVRC2012_val_*"))), None)

    @staticmethod
    def _truth(root: Path) -> Path | None:
        return next((root / name for name in TRUTH if (root / name).exists()), None)


def _number(name: str) -> int:
    digits = Path(name).stem.rpartition("_")[2]
    return int(digits) if digits.isdecimal() else 0


def _wnids(truth: Path, classes: tuple[str, ...]) -> dict[int, str]:
    """Return the wnid of each image number."""
    if truth.is_dir():
        return _devkit(truth / "data")
    if truth.suffix == ".txt":
        return dict(enumerate(read_text(truth).split(), 1))
    rows = read_table(truth, ("ImageId", "PredictionString"))
    return {_number(row["ImageId"]): row["PredictionString"].split(" ")[0] for row in rows}


def _devkit(folder: Path) -> dict[int, str]:
    from scipy.io import loadmat
    from scipy.io.matlab import MatReadError

    truth, meta = folder / "ILSVRC2012_validation_ground_truth.txt", folder / "meta.mat"
    if not (truth.is_file() and meta.is_file()):
        raise BadInputError(
            f"{folder} must hold {truth.name} and {meta.name}; unpack the development kit again"
        )
    ids = read_text(truth).split()
    broken = (
        MatReadError,
        OSError,
        EOFError,
        LookupError,
        TypeError,
        ValueError,
        NotImplementedError,
        zlib.error,
    )
    try:
        synsets = loadmat(meta, squeeze_me=True)["synsets"]
        wnid_of = {int(one["ILSVRC2012_ID"]): str(one["WNID"]) for one in synsets}
    except broken as error:
        raise BadInputError(
            f"{meta} must be a MATLAB file with the synsets, but {error or type(error).__name__}; unpack the "
            "development kit again"
        ) from error
    if strange := sorted(set(ids) - set(map(str, wnid_of))):
        raise BadInputError(
            f"{truth} must hold numbers of synsets in {meta.name}, got {strange[0]!r}; unpack the development kit again"
        )
    return {number: wnid_of[int(one)] for number, one in enumerate(ids, 1)}
