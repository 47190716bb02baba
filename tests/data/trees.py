# SPDX-License-Identifier: Apache-2.0
"""Small copies of every dataset in its on-disk format, with the labels written out by hand.

Each image is painted in the colour of its label, so that a test sees whether it got the image it asked for.
"""

import json
import pickle
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from tta_bench.data.catalogue import cifar, domains, fine_grained, imagenet, mnist, natural
from tta_bench.data.catalogue.declare import files_of
from tta_bench.data.dataset import Dataset, Shift

CATALOGUE = {
    value.name: value
    for module in (imagenet, natural, cifar, domains, fine_grained, mnist)
    for value in vars(module).values()
    if isinstance(value, Dataset)
}
VAL = "ILSVRC2012_val_0000{}.JPEG"


class Plant(NamedTuple):
    """A dataset's folder, one shift, and its images by path, each with its label."""

    folder: str
    shift: Shift
    pictures: dict[str, int]
    files: dict[str, str] = {}


def colour(label):
    return (label * 37 % 200 + 28, label * 91 % 200 + 28, label * 53 % 200 + 28)


def paint(path: Path, label: int, size=(48, 40)):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, colour(label)).save(path, "PNG" if path.suffix == ".png" else "JPEG", quality=95)


def _wnids(base, labels, name=VAL):
    return {f"{base}{wnid}/{name.format(i)}": label for i, (wnid, label) in enumerate(labels.items(), 1)}


# The last class first, so that a label from the rank of a folder would be wrong.
THOUSAND = {"n15075141": 999, "n01443537": 1, "n01440764": 0, "n02504458": 386}
A = {"n12267677": 199, "n01498041": 0, "n01531178": 1}
R = {"n12267677": 199, "n01443537": 0, "n01484850": 1}
TINY = {"n12267677": 199, "n01443537": 0, "n01629819": 1}


def _split(folder, images, file, entries, train):
    """A dataset with a split file of CoOp: ``entries`` are (path, label, class name) of the test split."""
    content = json.dumps({"train": train, "val": [], "test": [list(entry) for entry in entries]})
    pictures = {f"{images}{path}": label for path, label, _ in entries}
    return Plant(folder, Shift(""), pictures, {file: content})


TREES = {
    "imagenet": Plant("imagenet", Shift("imagenet"), _wnids("val/", THOUSAND)),
    "imagenet-c": Plant("ImageNet-C", Shift("", "fog", 3), _wnids("fog/3/", THOUSAND)),
    "imagenet-c-bar": Plant(
        "ImageNet-C-bar", Shift("", "cocentric_sine_waves", 2), _wnids("cocentric_sine_waves/2/", THOUSAND)
    ),
    "imagenet-3dcc": Plant("ImageNet-3DCC", Shift("", "fog_3d", 5), _wnids("fog_3d/5/", THOUSAND)),
    "tiny-imagenet-c": Plant("Tiny-ImageNet-C", Shift("", "snow", 1), _wnids("snow/1/", TINY, "val_{}.JPEG")),
    "imagenet-a": Plant("imagenet-a", Shift(""), _wnids("", A, "0.00{}_digital clock _ x_0.8.jpg")),
    "imagenet-r": Plant("imagenet-r", Shift(""), _wnids("", R, "art_{}.jpg")),
    "imagenet-v2": Plant(
        "imagenet-v2",
        Shift("", "matched-frequency"),
        {f"imagenetv2-matched-frequency-format-val/{n}/{n}a.jpeg": n for n in (0, 1, 2, 10, 100, 999)},
    ),
    "imagenet-sketch": Plant("ImageNet-Sketch", Shift(""), _wnids("sketch/", THOUSAND, "sketch_{}.JPEG")),
    "imagenet-d": Plant(
        "imagenet-d",
        Shift("", "clipart"),
        {
            "clipart/zebra/clipart_344_000001.jpg": 108,
            "clipart/aircraft_carrier/clipart_001_000001.jpg": 0,
            "clipart/couch/clipart_080_000001.jpg": 9,  # beds and couches are one class there
            "clipart/bed/clipart_026_000001.jpg": 9,
        },
    ),
    "objectnet": Plant(
        "objectnet-1.0",
        Shift(""),
        {"images/wok/a.png": 112, "images/alarm_clock/b.png": 0, "images/banana/c.png": 2},
    ),
    "domainnet126": Plant(
        "domainnet126",
        Shift("", "sketch"),
        {
            "sketch/zebra/sketch_344_000001.jpg": 125,
            "sketch/cello/sketch_067_000001.jpg": 30,
            "sketch/cell_phone/sketch_066_000001.jpg": 31,
            "sketch/The_Eiffel_Tower/sketch_000_000001.jpg": 115,
        },
        {
            "sketch_list.txt": "sketch/zebra/sketch_344_000001.jpg 125\nsketch/cello/sketch_067_000001.jpg 30\n"
            "sketch/cell_phone/sketch_066_000001.jpg 31\nsketch/The_Eiffel_Tower/sketch_000_000001.jpg 115\n"
        },
    ),
    "pacs": Plant(
        "PACS",
        Shift("", "sketch"),
        {"sketch/person/1.png": 6, "sketch/dog/2.png": 0, "sketch/horse/3.png": 4},
    ),
    "vlcs": Plant("VLCS", Shift("", "SUN09"), {"SUN09/person/1.jpg": 4, "SUN09/bird/2.jpg": 0}),
    "officehome": Plant(
        "OfficeHome",
        Shift("", "Real_World"),
        {
            "Real World/TV/00001.jpg": 58,
            "Real World/Table/00001.jpg": 59,
            "Real World/Alarm_Clock/00002.jpg": 0,
            "Real World/Webcam/00003.jpg": 64,
        },
    ),
    "visda-c": Plant(
        "VisDA-C",
        Shift("", "validation"),
        {"validation/truck/truck_1.jpg": 11, "validation/aeroplane/aeroplane_1.jpg": 0},
        {"validation/image_list.txt": "truck/truck_1.jpg 11\naeroplane/aeroplane_1.jpg 0\n"},
    ),
    "waterbirds": Plant(
        "waterbird_complete95_forest2water2",
        Shift(""),
        {"200.Yellowthroat/a.jpg": 0, "001.Albatross/b.jpg": 1},
        {
            "metadata.csv": "img_id,img_filename,y,split,place,place_filename\n1,200.Yellowthroat/a.jpg,0,2,0,x\n"
            "2,001.Albatross/b.jpg,1,2,1,y\n3,001.Albatross/train.jpg,1,0,1,y\n"
        },
    ),
    "caltech101": _split(
        "caltech-101",
        "101_ObjectCategories/",
        "split_zhou_Caltech101.json",
        [("Faces/image_1.jpg", 0, "face"), ("yin_yang/image_2.jpg", 99, "yin_yang"), ("ant/i.jpg", 6, "ant")],
        [["Faces/image_9.jpg", 0, "face"]],
    ),
    "oxford-pets": _split(
        "oxford_pets",
        "images/",
        "split_zhou_OxfordPets.json",
        [("yorkshire_terrier_1.jpg", 36, "yorkshire_terrier"), ("Abyssinian_1.jpg", 0, "abyssinian")],
        [],
    ),
    "stanford-cars": _split(
        "stanford_cars",
        "",
        "split_zhou_StanfordCars.json",
        [
            ("cars_test/00001.jpg", 181, "2012 Suzuki Kizashi Sedan"),
            ("cars_test/2.jpg", 2, "2012 Acura TL Sedan"),
        ],
        [["cars_train/00001.jpg", 0, "2000 AM General Hummer SUV"]],
    ),
    "flowers102": _split(
        "oxford_flowers",
        "jpg/",
        "split_zhou_OxfordFlowers.json",
        [
            ("image_1.jpg", 101, "blackberry lily"),
            ("image_2.jpg", 0, "pink primrose"),
            ("i.jpg", 11, "colt's foot"),
        ],
        [],
    ),
    "food101": _split(
        "food-101",
        "images/",
        "split_zhou_Food101.json",
        [("waffles/1.jpg", 100, "waffles"), ("apple_pie/2.jpg", 0, "apple_pie")],
        [],
    ),
    "sun397": _split(
        "sun397",
        "SUN397",
        "split_zhou_SUN397.json",
        [("/y/youth_hostel/1.jpg", 396, "youth_hostel"), ("/a/abbey/2.jpg", 0, "abbey")],
        [],
    ),
    "dtd": _split(
        "dtd",
        "images/",
        "split_zhou_DescribableTextures.json",
        [("zigzagged/1.jpg", 46, "zigzagged"), ("polka-dotted/2.jpg", 30, "polka-dotted")],
        [],
    ),
    "eurosat": _split(
        "eurosat",
        "2750/",
        "split_zhou_EuroSAT.json",
        [("SeaLake/1.jpg", 9, "Sea or Lake"), ("AnnualCrop/2.jpg", 0, "Annual Crop Land")],
        [],
    ),
    "ucf101": _split(
        "ucf101",
        "UCF-101-midframes/",
        "split_zhou_UCF101.json",
        [("YoYo/v_1.jpg", 100, "Yo_Yo"), ("HandstandPushups/v_2.jpg", 36, "Handstand_Pushups")],
        [],
    ),
    "fgvc-aircraft": Plant(
        "fgvc_aircraft",
        Shift(""),
        {"images/1514522.jpg": 99, "images/0034309.jpg": 0, "images/0000003.jpg": 70},
        {"images_variant_test.txt": "1514522 Yak-42\n0034309 707-320\n0000003 Embraer Legacy 600\n"},
    ),
}


def plant(name: str, root: Path) -> Plant:
    """Write the small copy of a dataset of files below a data root."""
    tree = TREES[name]
    for path, label in tree.pictures.items():
        paint(root / tree.folder / path, label, (48, 48) if files_of(CATALOGUE[name]).cropped else (48, 40))
    for path, content in tree.files.items():
        (root / tree.folder / path).parent.mkdir(parents=True, exist_ok=True)
        (root / tree.folder / path).write_text(content, encoding="utf-8")
    return tree._replace(shift=tree.shift._replace(dataset=name))


def pixels(count, seed):
    return np.random.default_rng(seed).integers(0, 256, (count, 32, 32, 3), dtype=np.uint8)


def plant_arrays(name: str, root: Path) -> tuple[Shift, np.ndarray, np.ndarray]:
    """Write the small copy of a dataset of arrays; return a shift with the pixels and labels it must give."""
    classes = len(CATALOGUE[name].class_names)
    labels = np.array([classes - 1, 0, 3, 1], dtype=np.int64)
    folder = {"cifar10": "cifar-10-batches-py", "cifar100": "cifar-100-python"}.get(name, name.upper())
    folder = root / folder.replace("CIFAR10", "CIFAR-10")
    folder.mkdir(parents=True)
    if name.endswith("-c"):
        blocks = pixels(20, 1)
        np.save(folder / "frost.npy", blocks)
        np.save(folder / "labels.npy", np.tile(labels, 5).astype(np.uint8))
        return Shift(name, "frost", 4), blocks[12:16], labels
    images = pixels(4, 2)
    if name == "cifar10.1":
        np.save(folder / "cifar10.1_v6_data.npy", images)
        np.save(folder / "cifar10.1_v6_labels.npy", labels.astype(np.int32))
        return Shift(name, "v6"), images, labels
    ten = name == "cifar10"
    batch = {
        "data": images.transpose(0, 3, 1, 2).reshape(4, 3072),
        ("labels" if ten else "fine_labels"): labels.tolist(),
        ("batch_label" if ten else "coarse_labels"): "x" if ten else [0] * 4,
    }
    (folder / ("test_batch" if ten else "test")).write_bytes(pickle.dumps(batch, protocol=2))
    return Shift(name), images, labels
