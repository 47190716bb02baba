# SPDX-License-Identifier: Apache-2.0
"""The declarations: complete, consistent with each other, and quick to list."""

import subprocess
import sys
from dataclasses import replace
from importlib import import_module

import pytest

from tta_bench.data.catalogue import common
from tta_bench.data.catalogue.declare import files_of
from tta_bench.data.catalogue.names import imagenet_indices, imagenet_names, imagenet_wnids
from tta_bench.data.corruptions import CORRUPTIONS, EXTRA, GROUPS
from tta_bench.data.dataset import Shift
from tta_bench.errors import BadInputError, UnknownNameError
from tta_bench.prompts import named

from .trees import CATALOGUE

CLASSES = {
    "imagenet": 1000, "imagenet-c": 1000, "imagenet-c-bar": 1000, "imagenet-3dcc": 1000, "imagenet-a": 200,
    "imagenet-r": 200, "imagenet-v2": 1000, "imagenet-sketch": 1000, "imagenet-d": 109, "objectnet": 113,
    "cifar10": 10, "cifar100": 100, "cifar10-c": 10, "cifar100-c": 100, "cifar10.1": 10, "tiny-imagenet-c": 200,
    "domainnet126": 126, "pacs": 7, "vlcs": 5, "officehome": 65, "visda-c": 12, "waterbirds": 2,
    "caltech101": 100, "oxford-pets": 37, "stanford-cars": 196, "flowers102": 102, "food101": 101, "sun397": 397,
    "dtd": 47, "eurosat": 10, "ucf101": 101, "fgvc-aircraft": 100,
    "mnist": 10, "mnist-c": 10, "fashion-mnist": 10, "fashion-mnist-c": 10, "fmnist-c": 10,
}  # fmt: skip


def test_every_dataset_is_declared_with_its_number_of_classes():
    assert {name: len(dataset.class_names) for name, dataset in CATALOGUE.items()} == CLASSES


@pytest.mark.parametrize("name", sorted(CLASSES))
def test_a_declaration_is_complete(name):
    dataset, files = CATALOGUE[name], files_of(CATALOGUE[name])
    assert dataset.title
    assert dataset.citation
    assert dataset.licence
    assert dataset.homepage.startswith("http")
    assert all(template.count("{}") == 1 for template in dataset.templates)
    for templates in dataset.prompt_sets.values():
        assert len(set(templates)) == len(templates)
        assert all(template.count("{}") == 1 for template in templates)
    assert files.tree
    assert files.downloads or files.steps
    assert all(name.strip() == name and "_" not in name for name in dataset.class_names)
    if name not in (
        "imagenet",
        "imagenet-c",
        "imagenet-c-bar",
        "imagenet-3dcc",
        "imagenet-v2",
        "imagenet-sketch",
    ):
        assert len(set(dataset.class_names)) == len(dataset.class_names)  # ImageNet's own list repeats a few
    if dataset.class_indices:
        assert len(dataset.class_indices) == len(dataset.class_names)
    assert set(files.counts) - {""} <= set(dataset.corruptions)
    for download in files.downloads:
        kind, _, value = download.checksum.partition(":")
        assert (kind, len(value)) in (("md5", 32), ("sha256", 64))
        int(value, 16)


def test_corruption_names_are_those_of_the_engine():
    assert common.COMMON == CORRUPTIONS
    assert common.EXTRA == EXTRA
    assert {name: group for group, names in GROUPS.items() for name in names} == common.GROUPS


@pytest.mark.parametrize(
    ("index", "wnid", "name"),
    [
        (0, "n01440764", "tench"),
        (1, "n01443537", "goldfish"),
        (463, "n02909870", "bucket"),
        (999, "n15075141", "toilet paper"),
    ],
)
def test_imagenet_order(index, wnid, name):
    assert imagenet_wnids()[index] == wnid
    assert imagenet_names()[index] == name


def test_imagenet_wnids_are_sorted_so_the_order_is_the_label():
    assert list(imagenet_wnids()) == sorted(set(imagenet_wnids()))


def test_a_and_r_share_86_classes():
    a, r = set(imagenet_indices("a")), set(imagenet_indices("r"))
    assert (len(a), len(r), len(a & r)) == (200, 200, 86)
    assert (min(a), max(a), min(r), max(r)) == (6, 988, 1, 988)


@pytest.mark.parametrize(
    ("name", "label", "expected"),
    [
        ("imagenet-a", 0, "stingray"),
        ("imagenet-r", 0, "goldfish"),
        ("imagenet-d", 108, "zebra"),
        ("objectnet", 0, "alarm clock"),
        ("tiny-imagenet-c", 199, "acorn"),
        ("fgvc-aircraft", 40, "Beechcraft 1900"),
        ("flowers102", 59, "pink-yellow dahlia"),
        ("sun397", 8, "outdoor apartment building"),
        ("officehome", 58, "TV"),
        ("officehome", 61, "toothbrush"),
    ],
)
def test_class_names_as_they_are_prompted(name, label, expected):
    assert CATALOGUE[name].class_names[label] == expected


@pytest.mark.parametrize("name", ["imagenet-d", "objectnet"])
def test_names_and_imagenet_outputs_mean_the_same(name):
    """Most names share a word with ImageNet's own name of the output that stands for them."""
    dataset = CATALOGUE[name]
    agree = 0
    for own, one in zip(dataset.class_names, dataset.class_indices, strict=True):
        theirs = " ".join(imagenet_names()[i] for i in ([one] if isinstance(one, int) else one)).lower()
        agree += any(word.strip("()s") in theirs for word in own.lower().split())
    assert agree / len(dataset.class_names) > 0.7


def test_domains_have_no_severity():
    pacs = CATALOGUE["pacs"]
    assert pacs.shifts(("sketch",), (1, 5)) == (Shift("pacs", "sketch"),)
    assert str(pacs.shifts(("sketch",))[0]) == "pacs:sketch"
    assert len(pacs.shifts()) == 4
    assert [str(shift) for shift in CATALOGUE["imagenet-v2"].shifts()] == ["imagenet-v2:matched-frequency"]
    with pytest.raises(UnknownNameError, match="unknown domain 'Sketch'"):
        pacs.shifts(("Sketch",))


def test_prompt_sets_replace_the_templates():
    assert len(CATALOGUE["imagenet"].prompted("ensemble").templates) == 80
    assert CATALOGUE["imagenet"].prompted("seven").templates[0] == "itap of a {}."
    assert len(CATALOGUE["cifar10"].prompted("ensemble").templates) == 18
    assert len(CATALOGUE["ucf101"].prompted("ensemble").templates) == 48
    with pytest.raises(UnknownNameError, match="set of prompt templates"):
        CATALOGUE["pacs"].prompted("assemble")
    assert CATALOGUE["pacs"].prompted("ensemble") == replace(
        CATALOGUE["pacs"], templates=named("ensemble").templates
    )


def test_unknown_data_options_are_refused(data):
    from tta_bench.data.dataset import OpenRequest

    with pytest.raises(UnknownNameError, match="did you mean 'workers'"):
        CATALOGUE["pacs"].open(OpenRequest(Shift("pacs", "sketch"), options={"worker": 2}))
    with pytest.raises(BadInputError, match="workers must be 0 or more"):
        CATALOGUE["pacs"].open(OpenRequest(Shift("pacs", "sketch"), options={"workers": -1}))


def test_declarations_import_neither_torch_nor_numpy():
    modules = ("imagenet", "natural", "cifar", "domains", "fine_grained", "families", "mnist")
    for module in modules:
        import_module(f"tta_bench.data.catalogue.{module}")
    code = "import sys\n" + "".join(f"import tta_bench.data.catalogue.{module}\n" for module in modules)
    code += "print([name for name in ('torch', 'numpy', 'timm', 'open_clip', 'PIL') if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
