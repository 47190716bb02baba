# SPDX-License-Identifier: Apache-2.0
"""CIFAR-10 and CIFAR-100, their corrupted versions, and CIFAR-10.1."""

from __future__ import annotations

from typing import Any

from tta_bench.data.catalogue.common import COMMON, CORRUPTION_PAPER, EXTRA
from tta_bench.data.catalogue.declare import declare
from tta_bench.data.catalogue.files import Download, Files
from tta_bench.data.catalogue.names import classes
from tta_bench.data.dataset import Dataset
from tta_bench.data.layouts.arrays import ArrayPair, CifarPickles, SeverityBlocks
from tta_bench.prompts import PHOTO, named

TEN = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
HUNDRED = classes("cifar100").names
SETS = {"single": PHOTO, "ensemble": named("cifar-ensemble").templates}
KRIZHEVSKY = "Krizhevsky, Learning Multiple Layers of Features from Tiny Images, 2009"
TORONTO = "https://www.cs.toronto.edu/~kriz"
RAW_10_1 = "https://github.com/modestyachts/CIFAR-10.1/raw/master/datasets"
BATCH = 200


def _pickles(name: str, split: str, names: tuple[str, ...], md5: str) -> Files:
    """Return the files of one split of CIFAR-10 or CIFAR-100."""
    ten = len(names) == len(TEN)
    batches = {
        "test": ("test_batch",) if ten else ("test",),
        "train": tuple(f"data_batch_{number}" for number in range(1, 6)) if ten else ("train",),
    }
    folder = "cifar-10-batches-py" if ten else "cifar-100-python"
    archive = f"{TORONTO}/cifar-{len(names)}-python.tar.gz"
    return Files(
        name=name,
        folders=(folder, name.partition("-")[0] + f"/{folder}", name.partition("-")[0]),
        layout=CifarPickles(names, batches[split], "labels" if ten else "fine_labels"),
        tree=tuple(f"{folder}/{batch}" for batch in batches[split]),
        counts={"": 10000 if split == "test" else 50000},
        downloads=(Download(archive, f"md5:{md5}", "tar"),),
    )


def _corrupted(name: str, folder: str, names: tuple[str, ...], record: str, sha256: str, size: int) -> Files:
    return Files(
        name=name,
        folders=(folder, name),
        layout=SeverityBlocks(names),
        tree=(f"{folder}/gaussian_noise.npy", f"{folder}/...", f"{folder}/labels.npy"),
        counts={"": 10000},
        downloads=(
            Download(
                f"https://zenodo.org/records/{record}/files/{folder}.tar",
                f"sha256:{sha256}",
                "tar",
                size=size,
            ),
        ),
    )


CIFAR10_FILES = _pickles("cifar10", "test", TEN, "c58f30108f718f92721af3b95e74349a")
CIFAR10_TRAIN = _pickles("cifar10-train", "train", TEN, "c58f30108f718f92721af3b95e74349a")
CIFAR100_FILES = _pickles("cifar100", "test", HUNDRED, "eb9058c3a382ffc7106e4002c42a8d85")
CIFAR100_TRAIN = _pickles("cifar100-train", "train", HUNDRED, "eb9058c3a382ffc7106e4002c42a8d85")


def _declare(files: Files, source: Files, names: tuple[str, ...], **facts: Any) -> Dataset:
    return declare(
        files,
        source=source,
        class_names=names,
        templates=PHOTO,
        prompt_sets=SETS,
        default_batch=BATCH,
        **facts,
    )


CIFAR10 = _declare(
    CIFAR10_FILES,
    CIFAR10_TRAIN,
    TEN,
    title="CIFAR-10 test set, 32 x 32, 10 classes",
    licence="not stated",
    citation=KRIZHEVSKY,
    homepage=f"{TORONTO}/cifar.html",
)
CIFAR100 = _declare(
    CIFAR100_FILES,
    CIFAR100_TRAIN,
    HUNDRED,
    title="CIFAR-100 test set, 32 x 32, 100 classes",
    licence="not stated",
    citation=KRIZHEVSKY,
    homepage=f"{TORONTO}/cifar.html",
)
CIFAR10_C = _declare(
    _corrupted(
        "cifar10-c",
        "CIFAR-10-C",
        TEN,
        "2535967",
        "c72763e101c723b7c507b96205f7e938912a5d587376173b825850cf3cb876a7",
        2918471680,
    ),
    CIFAR10_TRAIN,
    TEN,
    title="CIFAR-10 under 15 common corruptions and 4 more",
    corruptions=COMMON + EXTRA,
    default_corruptions=COMMON,
    licence="CC-BY-4.0",
    citation=CORRUPTION_PAPER,
    homepage="https://zenodo.org/records/2535967",
)
CIFAR100_C = _declare(
    _corrupted(
        "cifar100-c",
        "CIFAR-100-C",
        HUNDRED,
        "3555552",
        "30ee6543a1bfd049fa33834b7c1ada301e7064b7fbe8fc38340eb8b62ced4b33",
        2918473216,
    ),
    CIFAR100_TRAIN,
    HUNDRED,
    title="CIFAR-100 under 15 common corruptions and 4 more",
    corruptions=COMMON + EXTRA,
    default_corruptions=COMMON,
    licence="CC-BY-4.0",
    citation=CORRUPTION_PAPER,
    homepage="https://zenodo.org/records/3555552",
)
_SUMS_10_1 = (
    ("v6", "data", 6144128, "2997188e5816f5bd545dc77771b6227828c28146049fcecf3fa10775474cacc6"),
    ("v6", "labels", 8128, "ae40beda001693674edc94d925ee8268cfe68905f8f9aff800c8dcdfcd6c9448"),
    ("v4", "data", 6208640, "5aaedc268df8f4cffca2ac0cf9e608ae1897a8cddb630c7a850a2ea8f6558e75"),
    ("v4", "labels", 8212, "1f9544300ded199539b6662364ce7fe6c2e1ea9f87408f06db4b1a6184cffb18"),
)
CIFAR10_1 = _declare(
    Files(
        name="cifar10.1",
        folders=("CIFAR-10.1", "cifar10.1"),
        layout=ArrayPair(TEN),
        tree=("CIFAR-10.1/cifar10.1_v6_data.npy", "CIFAR-10.1/cifar10.1_v6_labels.npy"),
        counts={"v6": 2000, "v4": 2021},
        downloads=tuple(
            Download(
                f"{RAW_10_1}/cifar10.1_{version}_{kind}.npy",
                f"sha256:{total}",
                "",
                "CIFAR-10.1",
                size,
                version,
            )
            for version, kind, size, total in _SUMS_10_1
        ),
    ),
    CIFAR10_TRAIN,
    TEN,
    title="CIFAR-10.1: a new test set for CIFAR-10; version v6 (2,000 images) or v4",
    corruptions=("v6", "v4"),
    default_corruptions=("v6",),
    graded=False,
    licence="MIT",
    citation="Recht et al., Do CIFAR-10 Classifiers Generalize to CIFAR-10?, 2018, arXiv:1806.00451",
    homepage="https://github.com/modestyachts/CIFAR-10.1",
)
