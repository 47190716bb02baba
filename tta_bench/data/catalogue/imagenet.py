# SPDX-License-Identifier: Apache-2.0
"""ImageNet and its corrupted versions."""

from __future__ import annotations

from tta_bench.data.catalogue.common import COMMON, CORRUPTION_PAPER, EXTRA, GROUPS
from tta_bench.data.catalogue.declare import declare
from tta_bench.data.catalogue.files import Download, Files
from tta_bench.data.catalogue.names import classes, imagenet_names, imagenet_wnids
from tta_bench.data.layouts.imagenet import Validation
from tta_bench.data.layouts.subset_names import ROBUSTBENCH
from tta_bench.data.layouts.tree import ClassTree
from tta_bench.prompts import PHOTO, named

WNIDS = imagenet_wnids()
NAMES = imagenet_names()
SETS = {name: named(name).templates for name in ("single", "seven", "ensemble")}
FOLDERS = ("imagenet", "ImageNet", "imagenet2012", "ILSVRC2012", "imagenet-1k", "ILSVRC")
RESNET50 = "torchvision/resnet50:IMAGENET1K_V1"
"""The source model of the literature's ImageNet tables."""
ZENODO = "https://zenodo.org/records"

VAL_FILES = Files(
    name="imagenet",
    folders=FOLDERS,
    layout=Validation(WNIDS),
    tree=(
        "imagenet/val/n01440764/ILSVRC2012_val_00000293.JPEG",
        "imagenet/val/...                              (1,000 class folders, 50 images each)",
        "or imagenet/val/ILSVRC2012_val_00000001.JPEG  (flat) with imagenet/ILSVRC2012_devkit_t12/",
    ),
    counts={"": 50000},
    steps=(
        "Register at https://image-net.org and accept its terms (non-commercial research).",
        "Download ILSVRC2012_img_val.tar (6,744,924,160 bytes, md5 29b22e2961454d5413ddabcf34fc5622) and unpack it "
        "into imagenet/val.",
        "Download ILSVRC2012_devkit_t12.tar.gz (md5 fa75699e90414af021442c21a62c3abf) and unpack it into imagenet; "
        "or sort the images into folders named by wnid.",
    ),
    subsets=(ROBUSTBENCH,),
)
TRAIN_FILES = Files(
    name="imagenet-train",
    folders=FOLDERS,
    layout=ClassTree(WNIDS, ("train", "ILSVRC/Data/CLS-LOC/train")),
    tree=("imagenet/train/n01440764/n01440764_10026.JPEG",),
    counts={"": 1281167},
)
C_FILES = Files(
    name="imagenet-c",
    folders=("ImageNet-C", "imagenet-c", "imagenet_c"),
    layout=ClassTree(WNIDS, ("{corruption}/{severity}", "{group}/{corruption}/{severity}"), groups=GROUPS),
    tree=(
        "ImageNet-C/gaussian_noise/5/n01440764/ILSVRC2012_val_00000293.JPEG",
        "(a folder noise, blur, weather, digital or extra above the corruption is accepted too)",
        "Without these files, corruptions are generated while loading from imagenet/val.",
    ),
    counts={"": 50000},
    downloads=tuple(
        Download(f"{ZENODO}/2235448/files/{part}.tar", f"md5:{md5}", "tar", "ImageNet-C", part=part)
        for part, md5 in (
            ("noise", "e80562d7f6c3f8834afb1ecf27252745"),
            ("blur", "2d8e81fdd8e07fef67b9334fa635e45c"),
            ("weather", "33ffea4db4d93fe4a428c40a6ce0c25d"),
            ("digital", "89157860d7b10d5797849337ca2e5c03"),
            ("extra", "d492dfba5fc162d8ec2c3cd8ee672984"),
        )
    ),
    cropped=True,
    subsets=(ROBUSTBENCH,),
    clean=VAL_FILES,
    first=(256, 224),
    defaults={"elastic": "original"},
    notes=(
        "Generated corruptions: elastic_transform is that of the distributed files (--elastic imagecorruptions for the "
        "other published one); frost uses generated textures (--frost-dir for photographs).",
    ),
)
BAR = (
    "blue_noise_sample", "brownish_noise", "caustic_refraction", "checkerboard_cutout", "cocentric_sine_waves",
    "inverse_sparkles", "perlin_noise", "plasma_noise", "single_frequency_greyscale", "sparkles",
)  # fmt: skip
BAR_FILES = Files(
    name="imagenet-c-bar",
    folders=("ImageNet-C-bar", "imagenet_c_bar", "cbar_download", "ImageNet-Cbar"),
    layout=ClassTree(WNIDS, ("{corruption}/{severity}", "imagenet_c_bar/{corruption}/{severity}")),
    tree=("ImageNet-C-bar/perlin_noise/5/n01440764/ILSVRC2012_val_00000293.JPEG",),
    counts={"": 50000},
    steps=(
        "Download https://dl.fbaipublicfiles.com/inc_bar/imagenet_c_bar.tar.gz (no checksum is published).",
        "Unpack it and rename its folder cbar_download to ImageNet-C-bar.",
    ),
    cropped=True,
    subsets=(ROBUSTBENCH,),
)
COMMON_3D = (
    "near_focus", "far_focus", "bit_error", "color_quant", "flash", "fog_3d", "h265_abr", "h265_crf", "iso_noise",
    "low_light", "xy_motion_blur", "z_motion_blur",
)  # fmt: skip
FILES_3D = Files(
    name="imagenet-3dcc",
    folders=("ImageNet-3DCC", "imagenet_3dcc"),
    layout=ClassTree(WNIDS, ("{corruption}/{severity}",)),
    tree=("ImageNet-3DCC/fog_3d/5/n01440764/ILSVRC2012_val_00000293.JPEG",),
    counts={"": 50000},
    steps=(
        "Download https://datasets.epfl.ch/3dcc/imagenet_3dcc/NAME.tar.gz for each corruption (no checksum is "
        "published).",
        "Unpack them into ImageNet-3DCC.",
    ),
    cropped=True,
    subsets=(ROBUSTBENCH,),
)
TINY = classes("tiny-imagenet")
TINY_FILES = Files(
    name="tiny-imagenet-c",
    folders=("Tiny-ImageNet-C", "tiny-imagenet-c", "tinyimagenet-c"),
    layout=ClassTree(TINY.folders, ("{corruption}/{severity}",)),
    tree=("Tiny-ImageNet-C/gaussian_noise/5/n01443537/val_1050.JPEG",),
    counts={"": 10000},
    steps=(
        f"Download Tiny-ImageNet-C.tar from {ZENODO}/2536630 (its page shows the checksum).",
        "Unpack it into the data folder.",
    ),
    cropped=True,
)

IMAGENET = declare(
    VAL_FILES,
    source=TRAIN_FILES,
    classifier=RESNET50,
    title="ImageNet validation set, 1,000 classes",
    class_names=NAMES,
    templates=PHOTO,
    prompt_sets=SETS,
    licence="non-commercial research, registration",
    citation="Russakovsky et al., ImageNet Large Scale Visual Recognition Challenge, IJCV 2015, arXiv:1409.0575",
    homepage="https://image-net.org",
)
IMAGENET_C = declare(
    C_FILES,
    source=TRAIN_FILES,
    classifier=RESNET50,
    title="ImageNet under 15 common corruptions and 4 more, as distributed or generated from ImageNet",
    class_names=NAMES,
    corruptions=COMMON + EXTRA,
    default_corruptions=COMMON,
    templates=PHOTO,
    prompt_sets=SETS,
    licence="CC-BY-4.0",
    citation=CORRUPTION_PAPER,
    homepage=f"{ZENODO}/2235448",
)
IMAGENET_C_BAR = declare(
    BAR_FILES,
    source=TRAIN_FILES,
    classifier=RESNET50,
    title="ImageNet under 10 corruptions that are unlike the common ones",
    class_names=NAMES,
    corruptions=BAR,
    templates=PHOTO,
    prompt_sets=SETS,
    licence="not stated; generator MIT",
    citation="Mintun et al., On Interaction Between Augmentations and Corruptions in Natural Corruption Robustness, "
    "NeurIPS 2021, arXiv:2102.11273",
    homepage="https://github.com/facebookresearch/augmentation-corruption",
)
IMAGENET_3DCC = declare(
    FILES_3D,
    source=TRAIN_FILES,
    classifier=RESNET50,
    title="ImageNet under 12 corruptions that follow the scene's geometry",
    class_names=NAMES,
    corruptions=COMMON_3D,
    templates=PHOTO,
    prompt_sets=SETS,
    licence="CC-BY-NC-4.0",
    citation="Kar et al., 3D Common Corruptions and Data Augmentation, CVPR 2022, arXiv:2203.01441",
    homepage="https://3dcommoncorruptions.epfl.ch",
)
TINY_IMAGENET_C = declare(
    TINY_FILES,
    title="Tiny ImageNet (64 x 64, 200 classes) under the common corruptions",
    class_names=tuple(NAMES[WNIDS.index(wnid)] for wnid in TINY.folders),
    class_indices=tuple(WNIDS.index(wnid) for wnid in TINY.folders),
    corruptions=COMMON,
    templates=PHOTO,
    prompt_sets=SETS,
    licence="CC-BY-4.0",
    citation=CORRUPTION_PAPER,
    homepage=f"{ZENODO}/2536630",
)
