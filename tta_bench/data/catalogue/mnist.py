# SPDX-License-Identifier: Apache-2.0
"""MNIST and Fashion-MNIST, and their corrupted versions, as 32x32 images of three channels."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from tta_bench.data.catalogue.common import COMMON, CORRUPTION_PAPER, EXTRA
from tta_bench.data.catalogue.declare import declare
from tta_bench.data.catalogue.files import Download, Files
from tta_bench.data.dataset import Dataset
from tta_bench.data.layouts.grey import GreyArrays
from tta_bench.data.layouts.idx import IdxPair
from tta_bench.prompts import PHOTO, named

DIGITS = tuple(str(digit) for digit in range(10))
CLOTHES = (
    "T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot",
)  # fmt: skip
LECUN = "LeCun et al., Gradient-Based Learning Applied to Document Recognition, Proceedings of the IEEE, 1998"
XIAO = (
    "Xiao et al., Fashion-MNIST: a Novel Image Dataset for Benchmarking Machine Learning Algorithms, 2017, "
    "arXiv:1708.07747"
)
FASHION_HOME = "https://github.com/zalandoresearch/fashion-mnist"
MNIST_C_RECORD = "https://zenodo.org/records/3239543"
FMNIST_C_HOME = "https://github.com/testingautomated-usi/fashion-mnist-c"
MNIST_C_CORRUPTIONS = (
    "shot_noise", "impulse_noise", "glass_blur", "motion_blur", "shear", "scale", "rotate", "brightness",
    "translate", "stripe", "fog", "spatter", "dotted_line", "zigzag", "canny_edges",
)  # fmt: skip
BATCH = 200
_MNIST_SUMS = {
    "train-images-idx3": ("f68b3c2dcbeaaa9fbdd348bbdeb94873", 9912422),
    "train-labels-idx1": ("d53e105ee54ea40749a09fcbcd1e9432", 28881),
    "t10k-images-idx3": ("9fb629c4189551a2d022fa330f9573f3", 1648877),
    "t10k-labels-idx1": ("ec29112dd5afa0611ce80d1b7f02629c", 4542),
}
_FASHION_SUMS = {
    "train-images-idx3": ("8d4fb7e6c68d591d4c3dfef9ec88bf0d", 26421880),
    "train-labels-idx1": ("25c81989df183df01b3e8a0aad5dffbe", 29515),
    "t10k-images-idx3": ("bef4ecab320f06d8554ea6380940ec79", 4422102),
    "t10k-labels-idx1": ("bb300cfdad3c16e7a12a480ee83cd310", 5148),
}


def _idx(
    name: str, folder: str, classes: tuple[str, ...], place: str, sums: dict[str, tuple[str, int]]
) -> Files:
    """Return the files of a test split; those of the training split are `_train` of it."""
    return Files(
        name=name,
        folders=(folder, name),
        layout=IdxPair(classes),
        tree=tuple(f"{folder}/raw/{stem}-ubyte.gz" for stem in sums),
        counts={"": 10000},
        downloads=tuple(
            Download(f"{place}/{stem}-ubyte.gz", f"md5:{md5}", "", f"{folder}/raw", size)
            for stem, (md5, size) in sums.items()
        ),
    )


def _train(files: Files, classes: tuple[str, ...]) -> Files:
    return replace(files, name=f"{files.name}-train", layout=IdxPair(classes, "train"), counts={"": 60000})


MNIST_FILES = _idx("mnist", "MNIST", DIGITS, "https://ossci-datasets.s3.amazonaws.com/mnist", _MNIST_SUMS)
FASHION_FILES = _idx(
    "fashion-mnist",
    "FashionMNIST",
    CLOTHES,
    "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com",
    _FASHION_SUMS,
)


def _mnist(files: Files, **facts: Any) -> Dataset:
    return declare(
        files,
        source=_train(MNIST_FILES, DIGITS),
        class_names=DIGITS,
        templates=named("digits").templates,
        default_batch=BATCH,
        **facts,
    )


def _fashion(files: Files, **facts: Any) -> Dataset:
    return declare(
        files,
        source=_train(FASHION_FILES, CLOTHES),
        class_names=CLOTHES,
        templates=PHOTO,
        default_batch=BATCH,
        licence="MIT",
        **facts,
    )


MNIST = _mnist(
    MNIST_FILES,
    title="MNIST test set, 28 x 28 grey digits widened to 32 x 32, 10 classes",
    licence="CC-BY-SA-3.0",
    citation=LECUN,
    homepage="http://yann.lecun.com/exdb/mnist",
)
MNIST_C = _mnist(
    Files(
        name="mnist-c",
        folders=("mnist_c",),
        layout=GreyArrays(DIGITS, "{corruption}/test_images.npy", "{corruption}/test_labels.npy"),
        tree=("mnist_c/shot_noise/test_images.npy", "mnist_c/shot_noise/test_labels.npy", "mnist_c/..."),
        counts={"": 10000},
        downloads=(
            Download(f"{MNIST_C_RECORD}/files/mnist_c.zip", "md5:4b34b33045869ee6d424616cd3a65da3", "zip"),
        ),
    ),
    title="MNIST-C: MNIST under 15 corruptions of its own, one severity; identity is the clean set",
    corruptions=(*MNIST_C_CORRUPTIONS, "identity"),
    default_corruptions=MNIST_C_CORRUPTIONS,
    graded=False,
    licence="CC-BY-4.0",
    citation="Mu and Gilmer, MNIST-C: A Robustness Benchmark for Computer Vision, 2019, arXiv:1906.02337",
    homepage=MNIST_C_RECORD,
)
FASHION_MNIST = _fashion(
    FASHION_FILES,
    title="Fashion-MNIST test set, 28 x 28 grey clothes widened to 32 x 32, 10 classes",
    citation=XIAO,
    homepage=FASHION_HOME,
)
FASHION_MNIST_C = _fashion(
    replace(FASHION_FILES, name="fashion-mnist-c", clean=FASHION_FILES),
    title="Fashion-MNIST under the common corruptions, generated while loading with the constants for 32 x 32",
    corruptions=COMMON + EXTRA,
    default_corruptions=COMMON,
    citation=f"{XIAO}; corruptions: {CORRUPTION_PAPER}",
    homepage=FASHION_HOME,
    notes="No such files were published; `fmnist-c` is the published set, whose corruptions are mixed.",
)
FMNIST_C = _fashion(
    Files(
        name="fmnist-c",
        folders=("fmnist-c",),
        layout=GreyArrays(
            CLOTHES, "fmnist-c-test.npy", "fmnist-c-test-labels.npy", (".", "generated/npy", "npy")
        ),
        tree=("fmnist-c/fmnist-c-test.npy", "fmnist-c/fmnist-c-test-labels.npy"),
        counts={"": 10000},
        steps=(
            f"Get fmnist-c-test.npy and fmnist-c-test-labels.npy from generated/npy of {FMNIST_C_HOME}",
            "Put both into fmnist-c",
        ),
    ),
    title="FMNIST-C: Fashion-MNIST under corruptions, flips and turns, mixed in one set",
    citation="Weiss and Tonella, Simple Techniques Work Surprisingly Well for Neural Network Test Prioritization and "
    "Active Learning, ISSTA 2022, arXiv:2205.00664",
    homepage=FMNIST_C_HOME,
    notes="Which corruption an image has is not recorded, so it is one shift.",
)
