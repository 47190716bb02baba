# SPDX-License-Identifier: Apache-2.0
"""One's own weights and one's own photographs: EfficientNet-Lite0 on twenty labelled images, where they are there."""

import shutil

import pytest
import torch

from tta_bench.data.catalogue.families import folder
from tta_bench.data.catalogue.names import imagenet_names, imagenet_wnids
from tta_bench.data.dataset import OpenRequest
from tta_bench.models.loading import load_model


@pytest.fixture
def photographs(real_data, tmp_path):
    """Photographs in one folder per class, named by wnid, and the ImageNet output of each class."""
    for path in sorted((real_data / "photographs").glob("imagenet_*.jpg")):
        place = tmp_path / imagenet_wnids()[int(path.stem.rpartition("_")[2])]
        place.mkdir(exist_ok=True)
        shutil.copy(path, place)
    return tmp_path


def weights(real_data):
    return f"timm/tf_efficientnet_lite0:{real_data / 'efficientnet_lite0_timm.safetensors'}"


def test_a_folder_of_photographs_under_weights_from_a_file(real_data, photographs):
    dataset, _ = folder(str(photographs))
    images = dataset.open(OpenRequest(dataset.shifts()[0], options={"workers": 0}))
    outputs = torch.tensor([imagenet_wnids().index(name) for name in dataset.class_folders])
    assert len(images) == 20
    source = load_model(weights(real_data), imagenet_names())
    assert source.image_shape == (3, 224, 224)
    x = images.load(range(20), source.preprocess).float() / 255
    logits = source.logits(x)
    right = logits.argmax(1) == outputs[torch.from_numpy(images.labels)]
    assert right.sum() == 18
    # Bound to the folder's own classes it is the same network with fewer outputs.
    bound = load_model(weights(real_data), dataset.class_names, class_indices=outputs.tolist())
    torch.testing.assert_close(bound.logits(x), logits[:, outputs])
    assert (bound.logits(x).argmax(1) == torch.from_numpy(images.labels)).sum() >= 18
