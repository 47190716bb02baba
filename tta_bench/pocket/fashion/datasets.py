# SPDX-License-Identifier: Apache-2.0
"""The datasets pocket-fashion and pocket-fashion-c: real images that need no download."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from tta_bench.data.catalogue.common import COMMON, CORRUPTION_PAPER, EXTRA
from tta_bench.data.catalogue.families import reading_of
from tta_bench.data.catalogue.mnist import CLOTHES, FASHION_HOME, XIAO
from tta_bench.data.dataset import Dataset, OpenRequest, Shift
from tta_bench.data.layouts.idx import IdxPair

if TYPE_CHECKING:
    from tta_bench.data.images.source import ImageSource

DATA = Path(__file__).parent / "data"
TEST, TRAIN = IdxPair(CLOTHES, "t10k"), IdxPair(CLOTHES, "train")
NOTES = (
    "2,000 test images and 1,000 labelled training images of Fashion-MNIST, balanced over the classes, shipped with "
    "the package under the licence beside them (MIT, Zalando SE). The split is not the official one: the images were "
    "drawn from files in which the last 1,000 of each class are the test images. Do not compare with published numbers."
)


def open_fashion(opening: OpenRequest) -> ImageSource:
    """Return the shipped test images, corrupted where the shift says so."""
    reading = reading_of(opening)
    if reading.generated is not None:
        reading = replace(reading, origin=reading.origin.replace("the user's images", "pocket-fashion"))
    return TEST.open(DATA, opening.shift, reading)


def open_fashion_training() -> ImageSource:
    """Return the shipped training images, a part of what the pocket-fashion models were trained on."""
    opening = OpenRequest(Shift("pocket-fashion-train"))
    return TRAIN.open(DATA, opening.shift, reading_of(opening))


def _declare(name: str, title: str, citation: str, corruptions: tuple[str, ...] = ()) -> Dataset:
    return Dataset(
        name=name,
        title=title,
        class_names=CLOTHES,
        open=open_fashion,
        corruptions=corruptions,
        default_corruptions=COMMON if corruptions else (),
        default_batch=50,
        source_split=open_fashion_training,
        classifier="pocket-fashion-bn",
        licence="MIT",
        citation=citation,
        homepage=FASHION_HOME,
        notes=NOTES,
    )


POCKET_FASHION = _declare(
    "pocket-fashion",
    "2,000 real images of Fashion-MNIST, shipped with the package; not the official split",
    XIAO,
)
POCKET_FASHION_C = _declare(
    "pocket-fashion-c",
    "pocket-fashion under the common corruptions, like CIFAR-10-C: real images that need no download",
    f"{XIAO}; corruptions: {CORRUPTION_PAPER}",
    COMMON + EXTRA,
)
