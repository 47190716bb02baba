# SPDX-License-Identifier: Apache-2.0
"""The ten fine-grained sets that CLIP methods are compared on, with the splits of CoOp.

Source: Zhou et al., Learning to Prompt for Vision-Language Models, IJCV 2022, arXiv:2109.01134.
"""

from __future__ import annotations

from tta_bench.data.catalogue.declare import declare
from tta_bench.data.catalogue.files import Download, Files
from tta_bench.data.catalogue.names import classes
from tta_bench.data.dataset import Dataset
from tta_bench.data.layouts.lists import SplitFile, VariantLists
from tta_bench.prompts import PHOTO, named

DRIVE = "https://drive.google.com/file/d"
RESEARCH = "not stated; research use"


def _coop(
    name: str,
    split: str,
    drive: str,
    folders: tuple[str, ...],
    images: tuple[str, ...],
    count: int,
    *,
    single: tuple[str, ...] = PHOTO,
    ensemble: str = "",
    title: str,
    citation: str,
    homepage: str,
    licence: str = RESEARCH,
    downloads: tuple[Download, ...] = (),
    steps: tuple[str, ...] = (),
) -> Dataset:
    """Return a dataset with a split file of CoOp."""
    listed, file = classes(name), f"split_zhou_{split}.json"
    shown = f"{folders[0]}/{images[0]}".removesuffix("/.")
    return declare(
        Files(
            name=name,
            folders=folders,
            layout=SplitFile(listed.folders, file, images),
            tree=(f"{folders[0]}/{file}", f"{shown}/..."),
            counts={"": count},
            downloads=downloads,
            steps=(*steps, f"Download {file} from {DRIVE}/{drive}/view and put it into {folders[0]}."),
        ),
        title=title,
        class_names=listed.names,
        templates=single,
        prompt_sets={"single": single} | ({"ensemble": named(ensemble).templates} if ensemble else {}),
        licence=licence,
        citation=citation,
        homepage=homepage,
    )


CALTECH101 = _coop(
    "caltech101",
    "Caltech101",
    "1hyarUivQE36mY6jSomru6Fjd-JzwcCzN",
    ("caltech-101", "caltech101"),
    ("101_ObjectCategories", "caltech-101/101_ObjectCategories", "."),
    2465,
    title="Caltech-101: objects of 100 classes",
    citation="Fei-Fei et al., Learning Generative Visual Models from Few Training Examples, 2004",
    homepage="https://data.caltech.edu/records/mzrjq-6wc02",
    steps=(
        "Download caltech-101.zip (md5 3138e1922a9193bfa496528edbbc45d0) from https://data.caltech.edu/records/"
        "mzrjq-6wc02, unpack it, and unpack 101_ObjectCategories.tar.gz inside it.",
    ),
)
OXFORD_PETS = _coop(
    "oxford-pets",
    "OxfordPets",
    "1501r8Ber4nNKvmlFVQZ8SeUHTcdTTEqs",
    ("oxford_pets", "OxfordPets", "oxford-iiit-pet"),
    ("images",),
    3669,
    single=named("pets").templates,
    title="Oxford-IIIT Pets: 37 breeds of cats and dogs",
    citation="Parkhi et al., Cats and Dogs, CVPR 2012",
    homepage="https://www.robots.ox.ac.uk/~vgg/data/pets",
    licence="CC-BY-SA-4.0",
    downloads=(
        Download(
            "https://www.robots.ox.ac.uk/~vgg/data/pets/data/images.tar.gz",
            "md5:5c4f3ee8e5d25df40f4fd59a7f44e54c",
            "tar",
            "oxford_pets",
        ),
    ),
)
STANFORD_CARS = _coop(
    "stanford-cars",
    "StanfordCars",
    "1ObCFbaAgVu0I-k_Au-gIUcefirdAuizT",
    ("stanford_cars", "StanfordCars"),
    (".",),
    8041,
    ensemble="cars-ensemble",
    title="Stanford Cars: 196 makes, models and years",
    citation="Krause et al., 3D Object Representations for Fine-Grained Categorization, 2013",
    homepage="https://github.com/KaiyangZhou/CoOp/blob/main/DATASETS.md",
    licence="non-commercial research",
    steps=("The original host is gone; get cars_train and cars_test from a mirror you may use.",),
)
FLOWERS102 = _coop(
    "flowers102",
    "OxfordFlowers",
    "1Pp0sRXzZFZq15zVOzKjKBu4A9i01nozT",
    ("oxford_flowers", "Flower102", "flowers-102"),
    ("jpg",),
    2463,
    single=named("flowers").templates,
    title="Oxford Flowers: 102 classes (CoOp's split, not the official one)",
    citation="Nilsback and Zisserman, Automated Flower Classification over a Large Number of Classes, 2008",
    homepage="https://www.robots.ox.ac.uk/~vgg/data/flowers/102",
    downloads=(
        Download(
            "https://www.robots.ox.ac.uk/~vgg/data/flowers/102/102flowers.tgz",
            "md5:52808999861908f626f3c1f4e79d11fa",
            "tar",
            "oxford_flowers",
        ),
    ),
)
FOOD101 = _coop(
    "food101",
    "Food101",
    "1QK0tGi096I0Ba6kggatX1ee6dJFIcEJl",
    ("food-101", "Food101"),
    ("images", "food-101/images"),
    30300,
    single=named("food").templates,
    title="Food-101: 101 dishes",
    citation="Bossard et al., Food-101: Mining Discriminative Components with Random Forests, ECCV 2014",
    homepage="https://data.vision.ee.ethz.ch/cvl/datasets_extra/food-101",
    licence="non-commercial research",
    downloads=(
        Download(
            "http://data.vision.ee.ethz.ch/cvl/food-101.tar.gz", "md5:85eeb15f3717b99a5da872d97d918f87", "tar"
        ),
    ),
)
SUN397 = _coop(
    "sun397",
    "SUN397",
    "1y2RD81BYuiyvebdN-JymPfyWYcd8_MUq",
    ("sun397", "SUN397"),
    ("SUN397", "."),
    19850,
    ensemble="scenes-ensemble",
    title="SUN397: 397 scenes",
    citation="Xiao et al., SUN Database: Large-scale Scene Recognition from Abbey to Zoo, CVPR 2010",
    homepage="https://vision.princeton.edu/projects/2010/SUN",
    downloads=(
        Download(
            "http://vision.princeton.edu/projects/2010/SUN/SUN397.tar.gz",
            "md5:8ca2778205c41d23104230ba66911c7a",
            "tar",
            "sun397",
        ),
    ),
)
DTD = _coop(
    "dtd",
    "DescribableTextures",
    "1u3_QfB467jqHgNXC00UIzbLZRQCg2S7x",
    ("dtd", "DTD", "dtd/dtd"),
    ("images", "dtd/images"),
    1692,
    single=named("textures").templates,
    ensemble="textures-ensemble",
    title="Describable Textures: 47 textures",
    citation="Cimpoi et al., Describing Textures in the Wild, CVPR 2014, arXiv:1311.3618",
    homepage="https://www.robots.ox.ac.uk/~vgg/data/dtd",
    downloads=(
        Download(
            "https://www.robots.ox.ac.uk/~vgg/data/dtd/download/dtd-r1.0.1.tar.gz",
            "md5:fff73e5086ae6bdbea199a49dfb8a4c1",
            "tar",
        ),
    ),
)
EUROSAT = _coop(
    "eurosat",
    "EuroSAT",
    "1Ip7yaCWFi0eaOFUGga0lUdVi_DDQth1o",
    ("eurosat", "EuroSAT"),
    ("2750", "."),
    8100,
    single=named("satellite").templates,
    ensemble="satellite-ensemble",
    title="EuroSAT: 10 kinds of land seen by a satellite",
    citation="Helber et al., EuroSAT, JSTARS 2019, arXiv:1709.00029",
    homepage="https://github.com/phelber/EuroSAT",
    licence="MIT",
    downloads=(
        Download(
            "https://huggingface.co/datasets/torchgeo/eurosat/resolve/"
            "c877bcd43f099cd0196738f714544e355477f3fd/EuroSAT.zip",
            "md5:c8fa014336c82ac7804f0398fcb19387",
            "zip",
            "eurosat",
        ),
    ),
)
UCF101 = _coop(
    "ucf101",
    "UCF101",
    "1I0S0q91hJfsV9Gf4xDIjgDq4AqBNJb1y",
    ("ucf101", "UCF101"),
    ("UCF-101-midframes",),
    3783,
    single=named("actions").templates,
    ensemble="actions-ensemble",
    title="UCF101: middle frames of videos of 101 actions",
    citation="Soomro et al., UCF101, 2012, arXiv:1212.0402",
    homepage="https://www.crcv.ucf.edu/data/UCF101.php",
    steps=(
        f"Download UCF-101-midframes.zip from {DRIVE}/10Jqome3vtUA2keJkNanAiFpgbyC9Hc2O/view and unpack it into "
        "ucf101.",
    ),
)
_VARIANTS = classes("fgvc-aircraft")
FGVC_AIRCRAFT = declare(
    Files(
        name="fgvc-aircraft",
        folders=("fgvc_aircraft", "fgvc-aircraft-2013b", "fgvc-aircraft"),
        layout=VariantLists(_VARIANTS.folders),
        tree=("fgvc_aircraft/images_variant_test.txt", "fgvc_aircraft/images/1514522.jpg"),
        counts={"": 3333},
        steps=(
            "Download fgvc-aircraft-2013b.tar.gz from https://www.robots.ox.ac.uk/~vgg/data/fgvc-aircraft (no "
            "checksum is published).",
            "Unpack it and move the content of fgvc-aircraft-2013b/data into fgvc_aircraft.",
        ),
    ),
    title="FGVC-Aircraft: 100 aircraft variants",
    class_names=_VARIANTS.names,
    templates=named("aircraft").templates,
    prompt_sets={
        "single": named("aircraft").templates,
        "ensemble": named("aircraft-ensemble").templates,
    },
    licence="non-commercial research",
    citation="Maji et al., Fine-Grained Visual Classification of Aircraft, 2013, arXiv:1306.5151",
    homepage="https://www.robots.ox.ac.uk/~vgg/data/fgvc-aircraft",
)
