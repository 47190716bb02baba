# SPDX-License-Identifier: Apache-2.0
"""The time `source` waits for images that need no corruption."""

import time

import numpy as np
import timm
import torch
from PIL import Image

from tta_bench.data.dataset import OpenRequest, find_dataset
from tta_bench.data.images.preprocess import Preprocess
from tta_bench.data.stream import Part, Stream
from tta_bench.models.classifier import Classifier
from tta_bench.models.source import SourceModel

IMAGES, BATCH, CLASSES = 128, 16, 4
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def _pictures(folder):
    """Write JPEG files of the usual size of a photograph, smooth enough to compress like one."""
    generator = np.random.default_rng(0)
    for index in range(IMAGES):
        coarse = generator.integers(0, 256, (12, 16, 3), dtype=np.uint8)
        path = folder / f"class{index % CLASSES}" / f"{index}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(coarse).resize((500, 375), Image.Resampling.BICUBIC).save(path, quality=90)


def test_waiting_for_pictures(benchmark, goal, tmp_path):
    """Time the waits between the forward passes of a ResNet-50 with random weights, two workers decoding."""
    _pictures(tmp_path)
    dataset, _, _ = find_dataset(f"folder:{tmp_path}")
    images = dataset.open(OpenRequest(dataset.shifts()[0], options={"workers": 2}))
    preprocess = Preprocess((224, 224), 256)
    torch.manual_seed(0)
    network = Classifier(timm.create_model("resnet50", num_classes=CLASSES), CLASSES)
    facts = {"name": "timm/resnet50", "kind": "classifier", "class_names": dataset.class_names}
    source = SourceModel(network, mean=MEAN, std=STD, preprocess=preprocess, pretrained=False, **facts)
    shares = []

    @torch.no_grad()
    def measure():
        stream = Stream([Part(dataset.shifts()[0], images, np.arange(IMAGES))], BATCH, preprocess)
        batches, waited, start = stream.from_row(), 0.0, time.perf_counter()
        first = next(batches)  # the workers start once for each shift
        begun = time.perf_counter()
        source.logits(first.images.float() / 255)
        while True:
            asked = time.perf_counter()
            batch = next(batches, None)
            waited += time.perf_counter() - asked
            if batch is None:
                break
            source.logits(batch.images.float() / 255)
        ended = time.perf_counter()
        shares.append((waited / (ended - begun), (waited + begun - start) / (ended - start)))

    benchmark.pedantic(measure, rounds=3, iterations=1)
    steady, whole = (float(np.median(values)) for values in zip(*shares, strict=True))
    benchmark.extra_info |= {"waiting_steady": steady, "waiting_with_start": whole}
    goal("waiting_for_pictures_share", steady, 0.10)
    goal("waiting_with_the_start_of_workers_share", whole, 0.10)
