# SPDX-License-Identifier: Apache-2.0
"""Natural shifts of ImageNet: other images of (some of) the same classes."""

from __future__ import annotations

from typing import Any

from tta_bench.data.catalogue.declare import declare
from tta_bench.data.catalogue.files import Download, Files
from tta_bench.data.catalogue.imagenet import NAMES, RESNET50, SETS, TRAIN_FILES, WNIDS
from tta_bench.data.catalogue.names import columns, imagenet_indices, spaced
from tta_bench.data.dataset import Dataset
from tta_bench.data.layouts.lists import ListedTree
from tta_bench.data.layouts.tree import ClassTree
from tta_bench.prompts import PHOTO

BERKELEY = "https://people.eecs.berkeley.edu/~hendrycks"
V2 = "https://s3-us-west-2.amazonaws.com/imagenetv2public"


def _two_hundred(files: Files, part: str, **facts: Any) -> Dataset:
    """Return a dataset over 200 of ImageNet's classes, in ImageNet's order."""
    indices = imagenet_indices(part)
    return declare(
        files,
        class_names=tuple(NAMES[index] for index in indices),
        class_indices=indices,
        classifier=RESNET50,
        templates=PHOTO,
        prompt_sets=SETS,
        source=TRAIN_FILES,
        **facts,
    )


def _hendrycks(part: str, folder: str, image: str, count: int, size: int, md5: str) -> Files:
    return Files(
        name=f"imagenet-{part}",
        folders=(folder, f"ImageNet-{part.upper()}"),
        layout=ClassTree(tuple(WNIDS[index] for index in imagenet_indices(part))),
        tree=(f"{folder}/{image}", f"{folder}/...  (200 class folders)"),
        counts={"": count},
        downloads=(Download(f"{BERKELEY}/{folder}.tar", f"md5:{md5}", "tar", size=size),),
    )


IMAGENET_A = _two_hundred(
    _hendrycks(
        "a",
        "imagenet-a",
        "n01498041/0.000116_digital clock _ digital clock_0.865662.jpg",
        7500,
        687552512,
        "c3e55429088dc681f30d81f4726b6595",
    ),
    "a",
    title="ImageNet-A: 7,500 photographs that fooled a ResNet-50, 200 classes",
    licence="MIT",
    citation="Hendrycks et al., Natural Adversarial Examples, CVPR 2021, arXiv:1907.07174",
    homepage="https://github.com/hendrycks/natural-adv-examples",
)
IMAGENET_R = _two_hundred(
    _hendrycks(
        "r", "imagenet-r", "n01443537/art_0.jpg", 30000, 2191079936, "a61312130a589d0ca1a8fca1f2bd3337"
    ),
    "r",
    title="ImageNet-R: 30,000 renditions (art, cartoons, toys, ...), 200 classes",
    licence="MIT",
    citation="Hendrycks et al., The Many Faces of Robustness, ICCV 2021, arXiv:2006.16241",
    homepage="https://github.com/hendrycks/imagenet-r",
)

V2_VARIANTS = ("matched-frequency", "threshold0.7", "topimages")
V2_SUMS = (
    (1253959680, "a32004f9e773279307499059d320336a23ccdc62cb32063da29bae9bd04c122c"),
    (605399040, "bf2e2d9b625ae29c6e44982928f36220af62359b74602a995518a06840d0d76e"),
    (606351360, "1ced1ef684934a84af854658bc8ff9adbbec553631e6eef3535ef816c3d3b98f"),
)
V2_FILES = Files(
    name="imagenet-v2",
    folders=("imagenet-v2", "imagenetv2", "."),
    layout=ClassTree(
        tuple(str(label) for label in range(1000)),
        ("imagenetv2-{corruption}-format-val", "imagenetv2-{corruption}"),
        prefixed=True,
    ),
    tree=(
        "imagenet-v2/imagenetv2-matched-frequency-format-val/0/....jpeg",
        "imagenet-v2/...  (1,000 folders named by the label, 10 images each)",
    ),
    counts={"": 10000},
    downloads=tuple(
        Download(f"{V2}/imagenetv2-{variant}.tar.gz", f"sha256:{total}", "tar", "imagenet-v2", size, variant)
        for variant, (size, total) in zip(V2_VARIANTS, V2_SUMS, strict=True)
    ),
)
IMAGENET_V2 = declare(
    V2_FILES,
    source=TRAIN_FILES,
    classifier=RESNET50,
    title="ImageNet-V2: a new validation set, in three variants of how it was chosen",
    class_names=NAMES,
    corruptions=V2_VARIANTS,
    default_corruptions=V2_VARIANTS[:1],
    graded=False,
    templates=PHOTO,
    prompt_sets=SETS,
    licence="MIT",
    citation="Recht et al., Do ImageNet Classifiers Generalize to ImageNet?, ICML 2019, arXiv:1902.10811",
    homepage="https://huggingface.co/datasets/vaishaal/ImageNetV2",
)

IMAGENET_SKETCH = declare(
    Files(
        name="imagenet-sketch",
        folders=("ImageNet-Sketch", "imagenet_sketch"),
        layout=ClassTree(WNIDS, ("sketch", ".")),
        tree=(
            "ImageNet-Sketch/sketch/n01440764/sketch_0.JPEG",
            "ImageNet-Sketch/sketch/...  (1,000 class folders)",
        ),
        counts={"": 50889},
        steps=(
            "Download data/ImageNet-Sketch.zip from https://huggingface.co/datasets/songweig/imagenet_sketch (no "
            "checksum is published).",
            "Unpack it so that ImageNet-Sketch/sketch holds the class folders.",
        ),
    ),
    source=TRAIN_FILES,
    classifier=RESNET50,
    title="ImageNet-Sketch: 50,889 black and white sketches",
    class_names=NAMES,
    templates=PHOTO,
    prompt_sets=SETS,
    licence="not stated; repository MIT",
    citation="Wang et al., Learning Robust Global Representations by Penalizing Local Predictive Power, NeurIPS "
    "2019, arXiv:1905.13549",
    homepage="https://github.com/HaohanWang/ImageNet-Sketch",
)

_D = columns("imagenet-d")
D_FOLDERS = tuple(row[0] for row in _D)
D_DOMAINS = ("clipart", "infograph", "painting", "quickdraw", "real", "sketch")
IMAGENET_D = declare(
    Files(
        name="imagenet-d",
        folders=("imagenet-d", "imagenet_d109", "DomainNet", "domainnet"),
        layout=ListedTree(
            ClassTree(
                D_FOLDERS,
                ("{corruption}",),
                also={"couch": "bed", "hot_tub": "bathtub", "ceiling_fan": "fan"},
                subset=True,
                prefixed=True,
            ),
            ("imagenet_d109_lists/{corruption}_list.txt",),
        ),
        tree=(
            "imagenet-d/clipart/aircraft_carrier/clipart_001_000001.jpg",
            "(the unpacked DomainNet, or part)",
        ),
        counts=dict(zip(D_DOMAINS, (16049, 15700, 23926, 56000, 58526, 22298), strict=True)),
        notes=(
            "Prompts use the names of the ImageNet classes, as the published zero-shot results do; 40 of the 109 "
            "differ from the names of DomainNet's folders.",
        ),
        steps=(
            "Download DomainNet (cleaned version) from http://ai.bu.edu/M3SDA and unpack the six domains into one "
            "folder, imagenet-d or DomainNet.",
        ),
    ),
    source=TRAIN_FILES,
    classifier=RESNET50,
    title="ImageNet-D: DomainNet's 109 classes that are one ImageNet class each, 6 domains",
    class_names=tuple(NAMES[int(row[1])] for row in _D),
    class_indices=tuple(int(row[1]) for row in _D),
    corruptions=D_DOMAINS,
    graded=False,
    templates=PHOTO,
    licence="non-commercial research (DomainNet)",
    citation="Rusak et al., If your data distribution shifts, use self-learning, TMLR 2022, arXiv:2104.12928",
    homepage="https://github.com/bethgelab/robustness",
)

_OBJECTS = columns("objectnet")
OBJECTNET = declare(
    Files(
        name="objectnet",
        folders=("objectnet-1.0", "objectnet"),
        layout=ClassTree(
            tuple(row[0] for row in _OBJECTS), ("images", "objectnet-1.0/images", "."), subset=True
        ),
        tree=(
            "objectnet-1.0/images/air_freshener/00d1c9e90d9c4f0.png",
            "objectnet-1.0/images/...  (313 class folders; the 113 that ImageNet has are read)",
        ),
        counts={"": 18574},
        notes=(
            "Prompts use the names of ObjectNet's own folders, since several ImageNet classes may stand for one of "
            "them; 12 of the 113 differ from the names that published results of CLIP-like models were computed with.",
            "18,574 of the 50,273 images are of the 113 classes; a border of 2 pixels is cut from each.",
        ),
        steps=(
            "Accept the terms at https://objectnet.dev (tests only, never training); the site then shows the "
            "password of the archive.",
            "Unpack objectnet-1.0.zip into the data folder.",
        ),
        border=2,
    ),
    source=TRAIN_FILES,
    classifier=RESNET50,
    title="ObjectNet: objects in odd places and poses, the 113 classes that ImageNet has too",
    class_names=tuple(spaced(row[0]) for row in _OBJECTS),
    class_indices=tuple(
        tuple(map(int, row[1].split())) if " " in row[1] else int(row[1]) for row in _OBJECTS
    ),
    templates=PHOTO,
    licence="own licence: evaluation only",
    citation="Barbu et al., ObjectNet: A large-scale bias-controlled dataset, NeurIPS 2019",
    homepage="https://objectnet.dev",
)
