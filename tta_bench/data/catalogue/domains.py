# SPDX-License-Identifier: Apache-2.0
"""Domain adaptation and generalisation sets: the same classes in several domains."""

from __future__ import annotations

from tta_bench.data.catalogue.declare import declare
from tta_bench.data.catalogue.files import Files
from tta_bench.data.catalogue.names import classes
from tta_bench.data.layouts.lists import ListedTree, MetadataTable
from tta_bench.data.layouts.tree import ClassTree
from tta_bench.prompts import PHOTO

DOMAINNET = classes("domainnet126")
OFFICE = classes("officehome")
PACS_CLASSES = ("dog", "elephant", "giraffe", "guitar", "horse", "house", "person")
VLCS_CLASSES = ("bird", "car", "chair", "dog", "person")
VISDA_CLASSES = (
    "aeroplane", "bicycle", "bus", "car", "horse", "knife", "motorcycle", "person", "plant", "skateboard", "train",
    "truck",
)  # fmt: skip

DOMAINNET126 = declare(
    Files(
        name="domainnet126",
        folders=("domainnet126", "DomainNet-126", "DomainNet", "domainnet"),
        layout=ListedTree(
            ClassTree(DOMAINNET.folders, ("{corruption}",), subset=True, prefixed=True),
            (
                "{corruption}_list.txt",
                "domainnet126_lists/{corruption}_list.txt",
                ("{corruption}126_train.txt", "{corruption}126_test.txt"),
            ),
        ),
        tree=(
            "domainnet126/clipart/aircraft_carrier/clipart_001_000001.jpg",
            "domainnet126/clipart_list.txt   (lines `clipart/aircraft_carrier/clipart_001_000001.jpg 0`)",
            "Without the lists all images of the 126 class folders are read.",
        ),
        counts={"clipart": 18523, "painting": 30042, "real": 69622, "sketch": 24147},
        steps=(
            "Download clipart.zip and painting.zip from http://csr.bu.edu/ftp/visda/2019/multi-source/groundtruth/ "
            "and real.zip and sketch.zip from http://csr.bu.edu/ftp/visda/2019/multi-source/, and unpack them into "
            "domainnet126.",
            "Put the four list files of the 126 classes beside them.",
        ),
    ),
    title="DomainNet-126: 126 classes in 4 domains",
    class_names=DOMAINNET.names,
    corruptions=("clipart", "painting", "real", "sketch"),
    graded=False,
    templates=PHOTO,
    licence="non-commercial research",
    citation="Peng et al., Moment Matching for Multi-Source Domain Adaptation, ICCV 2019, arXiv:1812.01754; 126 "
    "classes: Saito et al., ICCV 2019, arXiv:1904.06487",
    homepage="http://ai.bu.edu/M3SDA",
)
PACS = declare(
    Files(
        name="pacs",
        folders=("PACS", "pacs"),
        layout=ClassTree(PACS_CLASSES, ("{corruption}", "kfold/{corruption}"), prefixed=True),
        tree=(
            "PACS/photo/dog/056_0001.jpg",
            "PACS/{art_painting,cartoon,photo,sketch}/...  (7 class folders)",
        ),
        counts={"photo": 1670, "art_painting": 2048, "cartoon": 2344, "sketch": 3929},
        steps=("Get the archive from https://domaingeneralization.github.io and unpack it into PACS.",),
    ),
    title="PACS: 7 classes in photographs, paintings, cartoons and sketches",
    class_names=PACS_CLASSES,
    corruptions=("art_painting", "cartoon", "photo", "sketch"),
    graded=False,
    templates=PHOTO,
    licence="not stated",
    citation="Li et al., Deeper, Broader and Artier Domain Generalization, ICCV 2017, arXiv:1710.03077",
    homepage="https://domaingeneralization.github.io",
)
VLCS = declare(
    Files(
        name="vlcs",
        folders=("VLCS", "vlcs"),
        layout=ClassTree(VLCS_CLASSES, ("{corruption}",), nested=True, prefixed=True),
        tree=(
            "VLCS/Caltech101/bird/001.jpg",
            "VLCS/{Caltech101,LabelMe,SUN09,VOC2007}/...  (5 class folders)",
        ),
        counts={"Caltech101": 1415, "LabelMe": 2656, "SUN09": 3282, "VOC2007": 3376},
        steps=("Get the archive that DomainBed links to and unpack it into VLCS.",),
    ),
    title="VLCS: 5 classes from four photograph collections",
    class_names=VLCS_CLASSES,
    corruptions=("Caltech101", "LabelMe", "SUN09", "VOC2007"),
    graded=False,
    templates=PHOTO,
    licence="not stated",
    citation="Fang et al., Unbiased Metric Learning, ICCV 2013",
    homepage="https://github.com/facebookresearch/DomainBed",
)
OFFICEHOME = declare(
    Files(
        name="officehome",
        folders=("OfficeHome", "OfficeHomeDataset_10072016", "office_home"),
        layout=ClassTree(
            OFFICE.folders,
            ("{corruption}",),
            spelled={
                "Real_World": ("Real World", "Real_World", "RealWorld", "real_world", "Real"),
                "Art": ("Art", "art"),
                "Clipart": ("Clipart", "clipart"),
                "Product": ("Product", "product"),
            },
            prefixed=True,
        ),
        tree=(
            "OfficeHome/Art/Alarm_Clock/00001.jpg",
            "OfficeHome/{Art,Clipart,Product,Real World}/...  (65 folders)",
        ),
        counts={"Art": 2427, "Clipart": 4365, "Product": 4439, "Real_World": 4357},
        steps=("Request the archive at https://www.hemanthdv.org/officeHomeDataset.html and unpack it.",),
    ),
    title="OfficeHome: 65 classes in art, clip art, product images and photographs",
    class_names=OFFICE.names,
    corruptions=("Art", "Clipart", "Product", "Real_World"),
    graded=False,
    templates=PHOTO,
    licence="non-commercial research",
    citation="Venkateswara et al., Deep Hashing Network for Unsupervised Domain Adaptation, CVPR 2017, "
    "arXiv:1706.07522",
    homepage="https://www.hemanthdv.org/officeHomeDataset.html",
)
VISDA_C = declare(
    Files(
        name="visda-c",
        folders=("VisDA-C", "visda-2017", "visda", "VISDA-C", "visda17"),
        layout=ListedTree(
            ClassTree(VISDA_CLASSES, ("{corruption}",), prefixed=True),
            ("{corruption}/image_list.txt",),
            under="{corruption}",
        ),
        tree=(
            "VisDA-C/validation/aeroplane/aeroplane_103.jpg",
            "VisDA-C/validation/image_list.txt   (lines `aeroplane/aeroplane_103.jpg 0`)",
        ),
        counts={"train": 152397, "validation": 55388, "test": 72372},
        steps=(
            "Download http://csr.bu.edu/ftp/visda17/clf/train.tar, validation.tar and test.tar (no checksum is "
            "published) and unpack them into VisDA-C.",
            "Replace test/image_list.txt by the one with labels from https://github.com/VisionLearningGroup/"
            "taskcv-2017-public.",
        ),
    ),
    title="VisDA-C 2017: 12 classes, from synthetic (train) to real images (validation, test)",
    class_names=VISDA_CLASSES,
    corruptions=("validation", "test", "train"),
    default_corruptions=("validation",),
    graded=False,
    templates=PHOTO,
    licence="not stated",
    citation="Peng et al., VisDA: The Visual Domain Adaptation Challenge, 2017, arXiv:1710.06924",
    homepage="https://ai.bu.edu/visda-2017",
)
WATERBIRDS = declare(
    Files(
        name="waterbirds",
        folders=("waterbird_complete95_forest2water2", "waterbirds"),
        layout=MetadataTable(("landbird", "waterbird")),
        tree=(
            "waterbird_complete95_forest2water2/metadata.csv",
            "waterbird_complete95_forest2water2/001.Black_footed_Albatross/....jpg",
        ),
        counts={"": 5794},
        steps=(
            "Download https://nlp.stanford.edu/data/dro/waterbird_complete95_forest2water2.tar.gz (no checksum is "
            "published) and unpack it.",
        ),
    ),
    title="Waterbirds: landbirds and waterbirds before land and water, the test split",
    class_names=("landbird", "waterbird"),
    templates=PHOTO,
    licence="not stated",
    citation="Sagawa et al., Distributionally Robust Neural Networks for Group Shifts, ICLR 2020, arXiv:1911.08731",
    homepage="https://github.com/kohpangwei/group_DRO",
)
